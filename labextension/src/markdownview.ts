/**
 * Markdown drawn block by block, so that an answer that grows touches only its end.
 *
 * While text streams in, every block but the last is settled: it is neither parsed nor drawn again. When the text is complete it
 * is parsed once as a whole, since a link's definition at the end may give meaning to its beginning; blocks that come out the
 * same stay as they are.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import { button, make, printable, setText } from './dom';
import type { IHost } from './host';
import { blocks, MATH_CLASS, type IBlock } from './markdown';

/** How long a button says that it has copied. */
const COPIED_MS = 1500;

/** So near to its end a scroll area counts as being at it. */
const END_PX = 8;

interface IShown {
  block: IBlock;
  node: HTMLElement;
  settled: boolean;
  coloured: boolean;
}

export class MarkdownView {
  readonly node = make('div', 'llm-Markdown jp-RenderedHTMLCommon');
  private _text = '';
  private _done = false;
  private _shown: IShown[] = [];
  private _settledEnd = 0;

  constructor(private readonly _host: IHost) {}

  /** Show a text; `done` says that nothing will follow it. */
  update(source: string, done: boolean): void {
    const text = printable(source);
    if (text === this._text && done === this._done) {
      return;
    }
    const grows = !done && !this._done && text.startsWith(this._text);
    if (!grows) {
      this._settledEnd = 0;
    }
    const kept = grows ? this._shown.filter(shown => shown.settled).length : 0;
    const rest = text.slice(this._settledEnd);
    const fresh = blocks(rest, this._host.trans);
    const n = done ? fresh.length : nSettled(fresh, rest);
    fresh.forEach((block, at) => this._place(kept + at, block, at < n));
    this._shown.splice(kept + fresh.length).forEach(shown => shown.node.remove());
    if (!done && n > 0) {
      this._settledEnd += fresh[n - 1].end;
    }
    this._text = text;
    this._done = done;
  }

  private _place(at: number, block: IBlock, settled: boolean): void {
    const old: IShown | undefined = this._shown[at];
    if (old && old.block.key === block.key) {
      old.block = block;
      this._settle(old, settled);
      return;
    }
    if (old && !old.settled && extendsCode(old.block, block)) {
      follow(old.node.querySelector('pre')!, () =>
        codeOf(old.node).append(block.code!.text.slice(old.block.code!.text.length))
      );
      old.block = block;
      this._settle(old, settled);
      return;
    }
    if (old && !old.settled && !old.block.code && !block.code) {
      growBlock(old.node, old.block, block, this._host.trans);
      old.block = block;
      this._settle(old, settled);
      return;
    }
    const node = block.code ? this._codeBlock(block.code) : htmlBlock(block.html, this._host.trans);
    const shown = { block, node, settled: false, coloured: false };
    if (old) {
      old.node.replaceWith(node);
    } else {
      this.node.append(node);
    }
    this._shown[at] = shown;
    this._settle(shown, settled);
  }

  private _settle(shown: IShown, settled: boolean): void {
    const { code } = shown.block;
    if (code?.language && !shown.coloured && (settled || code.closed)) {
      shown.coloured = true; // as soon as the code is complete, whatever is still to come behind it
      void colour(this._host, code, codeOf(shown.node));
    }
    if (!settled || shown.settled) {
      return;
    }
    shown.settled = true;
    if (!shown.block.code) {
      // One by one: a typesetter that saw the whole block would take "$5 and $" for a formula.
      shown.node.querySelectorAll<HTMLElement>(`.${MATH_CLASS}`).forEach(maths => this._host.typeset(maths));
    }
  }

  private _codeBlock(code: { text: string; language: string }): HTMLElement {
    const { trans } = this._host;
    const node = make('div', 'llm-Code');
    const bar = codeBar(this._host, code.language, node, () => codeOf(node).textContent ?? '');
    const pre = make('pre', '', { tabindex: '0' }, make('code', '', {}, code.text));
    pre.setAttribute('aria-label', code.language ? trans.__('%1 code', code.language) : trans.__('code'));
    pre.setAttribute('role', 'group');
    node.append(bar, pre);
    return node;
  }
}

/** Keep the end of a scroll area in sight while it grows, unless the reader has scrolled away from it. */
function follow(area: HTMLElement, grow: () => void): void {
  const atEnd = area.scrollHeight - area.scrollTop - area.clientHeight < END_PX;
  grow();
  if (atEnd) {
    area.scrollTop = area.scrollHeight;
  }
}

/** The bar above the code in `node`: its language, and buttons that copy it and make a cell of it. */
export function codeBar(host: IHost, language: string, node: HTMLElement, text: () => string): HTMLElement {
  const { trans } = host;
  const insert = button(trans.__('Insert below'), trans.__('Insert this code as a new cell below'), () => {
    if (!host.insertBelow(text(), node)) {
      insert.disabled = true;
    }
  });
  const copy = button(trans.__('Copy'), trans.__('Copy this code'), () => {
    host.copy(text());
    setText(copy, trans.__('Copied'));
    window.setTimeout(() => setText(copy, trans.__('Copy')), COPIED_MS);
  });
  return make('div', 'llm-Code-bar', {}, make('span', '', {}, language), copy, insert);
}

/** Colour code, and put it in place only if it is still what is shown there. */
export async function colour(
  host: IHost,
  code: { text: string; language: string },
  element: HTMLElement
): Promise<void> {
  const coloured = make('code');
  await host.highlight(code.text, code.language, coloured);
  if (coloured.textContent === code.text && element.textContent === code.text) {
    element.replaceChildren(...Array.from(coloured.childNodes));
  }
}

/**
 * How many blocks of a growing text will not change: all but the last, and not a list before it whose next item may only have
 * begun, e.g. with the `2` of `2. and so on`.
 */
function nSettled(found: IBlock[], text: string): number {
  if (found.some(({ last }) => last)) {
    return 0; // notes stand at the end of the text, and belong to what is in front of them
  }
  const n = Math.max(found.length - 1, 0);
  return n > 0 && found[n - 1].parts && !/\S.*\n/.test(text.slice(found[n - 1].end)) ? n - 1 : n;
}

function extendsCode(old: IBlock, block: IBlock): boolean {
  return (
    !!old.code &&
    !!block.code &&
    old.code.language === block.code.language &&
    block.code.text.startsWith(old.code.text)
  );
}

function codeOf(node: HTMLElement): HTMLElement {
  return node.querySelector('code')!;
}

/** Make the element of the block `old` that of `block`; of a list or a table only the items that are not the same are built. */
function growBlock(node: HTMLElement, old: IBlock, block: IBlock, trans: TranslationBundle): void {
  const container = itemsOf(node);
  if (!container || !old.parts || !block.parts || old.parts.before !== block.parts.before) {
    grow(node, htmlBlock(block.html, trans));
    return;
  }
  const { before, items, after } = block.parts;
  let same = 0;
  while (same < items.length && items[same] === old.parts.items[same]) {
    same++;
  }
  while (container.children.length > same) {
    container.lastChild!.remove();
  }
  const fresh = itemsOf(htmlBlock(before + items.slice(same).join('') + after, trans))!;
  while (fresh.firstChild instanceof Text) {
    fresh.firstChild.remove(); // the line end in front of the first item is there already
  }
  container.append(...Array.from(fresh.childNodes));
}

/** The element that holds the items of a list's or a table's block. */
function itemsOf(node: HTMLElement): Element | null {
  return node.querySelector(':scope > ul, :scope > ol, :scope > .llm-Table > table > tbody');
}

/** Make `old` what `fresh` is, and keep what is equal at its beginning: a list that grows keeps its items, and their selection. */
function grow(old: Element, fresh: Element): void {
  const [had, has] = [Array.from(old.childNodes), Array.from(fresh.childNodes)];
  let at = 0;
  while (at < had.length && at < has.length && had[at].isEqualNode(has[at])) {
    at++;
  }
  const [last, next] = [had[at], has[at]];
  if (last instanceof Element && next instanceof Element && last.cloneNode().isEqualNode(next.cloneNode())) {
    grow(last, next);
    at++;
  }
  had.slice(at).forEach(node => node.remove());
  old.append(...has.slice(at));
}

/** `html` comes from our own renderer, which lets no raw HTML through. */
function htmlBlock(html: string, trans: TranslationBundle): HTMLElement {
  const node = make('div', 'llm-Block');
  node.innerHTML = html;
  node.querySelectorAll('table').forEach(table => {
    const frame = make('div', 'llm-Table', {
      tabindex: '0',
      role: 'group',
      'aria-label': trans.__('table')
    });
    table.replaceWith(frame);
    frame.append(table);
  });
  return node;
}
