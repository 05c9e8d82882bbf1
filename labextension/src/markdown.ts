/**
 * Markdown that a model or a tool wrote, to HTML that is safe whatever it says.
 *
 * Raw HTML is text. Links go to http, https and mailto only and open apart from this page; a picture becomes a link, so that
 * nothing is fetched. Maths is left as marked text for the page's own typesetter.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import MarkdownIt from 'markdown-it';
import type { StateBlock, StateInline, Token } from 'markdown-it';
import { extend, isFootnotes } from './markdownrules';

const SAFE_LINK = /^(https?:|mailto:)/i;

/** The class of elements whose text is TeX between its delimiters. */
export const MATH_CLASS = 'llm-Math';

/** What a rule of the renderer is given beside the tokens. */
interface IEnvironment {
  trans: TranslationBundle;
}

const markdown = new MarkdownIt({ html: false, linkify: false, typographer: false });
markdown.validateLink = url => SAFE_LINK.test(url.trim());
markdown.renderer.rules.link_open = (tokens, index, options, _env, self) => {
  tokens[index].attrSet('target', '_blank');
  tokens[index].attrSet('rel', 'noopener noreferrer nofollow');
  return self.renderToken(tokens, index, options);
};
markdown.renderer.rules.image = (tokens, index, _options, { trans }: IEnvironment) => {
  const address = String(tokens[index].attrGet('src') ?? '');
  const label = markdown.utils.escapeHtml(trans.__('[picture: %1]', tokens[index].content || address));
  const href = markdown.utils.escapeHtml(address);
  return `<a href="${href}" target="_blank" rel="noopener noreferrer nofollow">${label}</a>`;
};
extend(markdown);
markdown.inline.ruler.before('escape', 'math', inlineMath);
markdown.block.ruler.before('fence', 'math', blockMath, { alt: ['paragraph'] });
markdown.renderer.rules.math = (tokens, index) => {
  const tag = tokens[index].block ? 'div' : 'span';
  return `<${tag} class="${MATH_CLASS}">${markdown.utils.escapeHtml(tokens[index].content)}</${tag}>`;
};

/** One top-level block: where its source ends, and what it is drawn from. Equal `key`s are drawn alike. */
export interface IBlock {
  key: string;
  /** Offset in the source just behind the block. */
  end: number;
  html: string;
  /** Set for a list and a table: `html` in pieces, one for each item or row, so that a long one need not be built anew. */
  parts?: { before: string; items: string[]; after: string };
  /** Set for the footnotes, which stay at the end of a text that grows. */
  last?: boolean;
  /** Set for a code block, which the view draws itself: its text and language, and whether its end is there. */
  code?: { text: string; language: string; closed: boolean };
}

/** Cut markdown into its top-level blocks. */
export function blocks(source: string, trans: TranslationBundle): IBlock[] {
  const env: IEnvironment = { trans };
  const tokens = markdown.parse(source, env);
  const ends = lineEnds(source);
  const found: IBlock[] = [];
  for (let start = 0; start < tokens.length;) {
    const stop = blockEnd(tokens, start);
    const first = tokens[start];
    const end = ends[(first.map?.[1] ?? 1) - 1] ?? source.length;
    if (stop === start + 1 && (first.type === 'fence' || first.type === 'code_block')) {
      const language = languageOf(first.info);
      found.push({
        key: `code ${language}\n${first.content}`,
        end,
        html: '',
        code: { text: first.content, language, closed: isClosed(first, source, ends) }
      });
    } else {
      const render = (from: number, to: number) =>
        markdown.renderer.render(tokens.slice(from, to), markdown.options, env);
      const parts = inParts(tokens, start, stop, render);
      const html = parts ? [parts.before, ...parts.items, parts.after].join('') : render(start, stop);
      found.push({ key: html, end, html, parts, last: isFootnotes(first) });
    }
    start = stop;
  }
  return found;
}

/** The code blocks of a text, also those inside of lists and quotations. */
export function codeBlocks(source: string): { text: string; language: string }[] {
  return markdown
    .parse(source, {})
    .filter(({ type }) => type === 'fence' || type === 'code_block')
    .map(({ content, info }) => ({ text: content, language: languageOf(info) }));
}

function languageOf(info: string): string {
  return info.trim().split(/\s+/)[0] ?? '';
}

/** The tokens that begin an item and the level they are at, e.g. the rows in a table's body. */
const ITEMS: Record<string, { type: string; level: number }> = {
  bullet_list_open: { type: 'list_item_open', level: 1 },
  ordered_list_open: { type: 'list_item_open', level: 1 },
  table_open: { type: 'tr_open', level: 2 }
};

function inParts(
  tokens: Token[],
  start: number,
  stop: number,
  render: (from: number, to: number) => string
): IBlock['parts'] {
  const kind = ITEMS[tokens[start].type];
  let at = start;
  if (kind?.type === 'tr_open') {
    while (at < stop && tokens[at].type !== 'tbody_open') {
      at++;
    }
  }
  while (kind && at < stop && !(tokens[at].type === kind.type && tokens[at].level === kind.level)) {
    at++;
  }
  if (!kind || at === stop) {
    return undefined;
  }
  const before = render(start, at);
  const items: string[] = [];
  while (tokens[at].type === kind.type) {
    const next = blockEnd(tokens, at);
    items.push(render(at, next));
    at = next;
  }
  return { before, items, after: render(at, stop) };
}

function blockEnd(tokens: Token[], start: number): number {
  let depth = 0;
  for (let at = start; at < tokens.length; at++) {
    depth += tokens[at].nesting;
    if (depth === 0) {
      return at + 1;
    }
  }
  return tokens.length;
}

/** Whether a fence has its closing line, e.g. three backticks. */
function isClosed({ markup, map }: Token, source: string, ends: number[]): boolean {
  const [first, last] = map ?? [0, 0];
  return (
    !!markup &&
    last - first > 1 &&
    source
      .slice(ends[last - 2], ends[last - 1])
      .trim()
      .startsWith(markup)
  );
}

function lineEnds(source: string): number[] {
  const ends: number[] = [];
  for (let at = source.indexOf('\n'); at >= 0; at = source.indexOf('\n', at + 1)) {
    ends.push(at + 1);
  }
  ends.push(source.length);
  return ends;
}

/** e.g. `$x^2$`, `$$x^2$$`, `\(x^2\)`, `\[x^2\]`; not `$5 and $6`: no blank inside the dollars, no digit behind them. */
const INLINE_MATH =
  /\$\$[^$]+?\$\$|\$(?![\s$])(?:\\.|[^$\\\n])*?(?<![\s\\])\$(?!\d)|\\\((?:.|\n)+?\\\)|\\\[(?:.|\n)+?\\\]/y;

function inlineMath(state: StateInline, silent: boolean): boolean {
  const opener = state.src[state.pos];
  if (opener !== '$' && opener !== '\\') {
    return false;
  }
  INLINE_MATH.lastIndex = state.pos;
  const found = INLINE_MATH.exec(state.src)?.[0];
  if (!found || state.pos + found.length > state.posMax) {
    return false;
  }
  if (!silent) {
    state.push('math', '', 0).content = found;
  }
  state.pos += found.length;
  return true;
}

/** A display formula over several lines, e.g. `$$` newline `x^2` newline `$$`; its blank lines do not end it. */
function blockMath(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  const line = (at: number) => state.src.slice(state.bMarks[at] + state.tShift[at], state.eMarks[at]);
  const opening = line(startLine).trimEnd();
  const closing = opening.startsWith('$$') ? '$$' : opening.startsWith('\\[') ? '\\]' : '';
  if (!closing || state.sCount[startLine] - state.blkIndent >= 4) {
    return false;
  }
  let last = startLine;
  const closes = (at: number) =>
    line(at).trimEnd().endsWith(closing) && (at > startLine || opening.length >= 4);
  while (last < endLine && !closes(last)) {
    last++;
  }
  if (last >= endLine) {
    return false;
  }
  if (!silent) {
    const token = state.push('math', '', 0);
    token.block = true;
    token.content = state.getLines(startLine, last + 1, state.blkIndent, false).trim();
    token.map = [startLine, last + 1];
    state.line = last + 1;
  }
  return true;
}
