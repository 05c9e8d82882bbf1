/** What answers have beyond CommonMark: task lists, footnotes, prices that are no formulas, text that runs from right to left. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type MarkdownIt from 'markdown-it';
import type { PluginSimple, StateCore, StateInline, Token } from 'markdown-it';
import footnotes from 'markdown-it-footnote';

/** e.g. the `[x]` of `- [x] done` */
const TASK = /^\[([ xX])\](?=[ \t])/;

/** e.g. `$5 to buy` and `$10 and`: an amount and a word, and no formula, which would have a sign between them. */
const PRICE = /\$\d[\d.,]*[-–]?[ \n]+(?:a )?[a-z]{2,}/iy;

/** The blocks whose first strong letter says in which direction they run; what is inside of them follows. */
const DIRECTED = new Set(['p', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'blockquote', 'table']);

/** Add these rules to a parser. `env` of each parse holds the `trans` of the page. */
export function extend(markdown: MarkdownIt): void {
  const notes = footnotes as unknown as PluginSimple; // its types are those of another build of markdown-it
  markdown.use(notes).disable('footnote_inline'); // x^[1] is a power more often than a note
  markdown.inline.ruler.before('escape', 'price', price);
  markdown.core.ruler.after('inline', 'tasks', ({ tokens }) =>
    tokens.forEach((_, at) => makeTask(tokens, at))
  );
  markdown.core.ruler.before('footnote_tail', 'orphans', orphans);
  markdown.core.ruler.push('directions', directions);
  const rules = markdown.renderer.rules;
  rules.task = (tokens, at, _options, { trans }: { trans: TranslationBundle }) => {
    const done = tokens[at].meta as boolean;
    const label = markdown.utils.escapeHtml(done ? trans.__('done') : trans.__('not done'));
    return `<span class="llm-Task" role="img" aria-label="${label}">${done ? '☑' : '☐'}</span>`;
  };
  // No links from a note to its place and back: their names would be those of every other answer on the page.
  rules.footnote_ref = (tokens, at) => `<sup>[${Number(tokens[at].meta.id) + 1}]</sup>`;
  rules.footnote_block_open = () => '<div class="llm-Footnotes"><ol dir="auto">';
  rules.footnote_block_close = () => '</ol></div>';
  rules.footnote_open = () => '<li>';
  rules.footnote_anchor = () => '';
}

/** Whether these tokens begin the notes, which stand at the end wherever they were written. */
export function isFootnotes(token: Token): boolean {
  return token.type === 'footnote_block_open';
}

function price(state: StateInline, silent: boolean): boolean {
  PRICE.lastIndex = state.pos;
  if (!PRICE.test(state.src)) {
    return false;
  }
  if (!silent) {
    state.pending += '$';
  }
  state.pos++;
  return true;
}

function makeTask(tokens: Token[], at: number): void {
  const [item, paragraph, inline] = tokens.slice(Math.max(at - 2, 0), at + 1);
  const first = inline?.children?.[0];
  const found = first?.type === 'text' && TASK.exec(first.content);
  if (item?.type === 'list_item_open' && paragraph.type === 'paragraph_open' && first && found) {
    first.content = first.content.slice(found[0].length);
    const task = new (first.constructor as typeof Token)('task', 'span', 0);
    task.meta = found[1] !== ' ';
    inline.children!.unshift(task);
    item.attrJoin('class', 'llm-TaskItem');
  }
}

/** Keep as text what looks like a note and is none: nothing refers to it, or another one of its name follows. */
function orphans(state: StateCore): void {
  const { tokens } = state;
  const refs: Record<string, number> = state.env.footnotes?.refs ?? {};
  const last = new Map<string, number>();
  tokens.forEach(({ type, meta }, at) => type === 'footnote_reference_open' && last.set(meta.label, at));
  let [inside, end] = ['', 0];
  state.tokens = tokens.flatMap((token, at) => {
    end = Math.max(end, token.map?.[1] ?? 0);
    if (token.type === 'footnote_reference_close' && inside) {
      inside = '';
      return [];
    }
    if (token.type !== 'footnote_reference_open') {
      return [token];
    }
    const { label } = token.meta;
    inside = (refs[`:${label}`] ?? -1) >= 0 && last.get(label) === at ? '' : `[^${label}]: `;
    return inside ? led(inside, tokens.slice(at + 1, at + 3), end, state) : [token];
  });
}

/** Put a text in front of a paragraph, or into one of its own where something else follows. */
function led(text: string, [first, inline]: Token[], line: number, { Token }: StateCore): Token[] {
  const leading = new Token('text', '', 0);
  leading.content = text;
  if (first?.type === 'paragraph_open' && inline?.type === 'inline') {
    inline.children!.unshift(leading);
    return [];
  }
  const made = [
    new Token('paragraph_open', 'p', 1),
    new Token('inline', '', 0),
    new Token('paragraph_close', 'p', -1)
  ];
  made[0].map = [line, line];
  made[1].children = [leading];
  return made;
}

function directions({ tokens }: StateCore): void {
  tokens
    .filter(({ level, nesting, tag }) => level === 0 && nesting === 1 && DIRECTED.has(tag))
    .forEach(token => token.attrSet('dir', 'auto'));
}
