/** Keeping the end of what grows in sight. */

import type { ISignal } from '@lumino/signaling';

/** The end of an answer may lie so far below the notebook's edge and still be followed. */
const SLACK_PX = 48;

/** What a reader does elsewhere: whoever scrolls, clicks or types after running a cell is left there. */
const ACTS = ['wheel', 'touchmove', 'pointerdown', 'keydown'];
const MODIFIERS = ['Shift', 'Control', 'Alt', 'Meta'];

/** When a cell was last run from this page, by its node, and when the reader last did something, by the page's clock. */
const ran = new WeakMap<Element, number>();
let acted = 0;

/** Note from now on which cells this page runs, which `runs` tells, and what the reader does. Gives what ends it. */
export function watchReader(page: Document, runs: ISignal<any, { cell: { node: Element } }>): () => void {
  const onRun = (_: unknown, { cell }: { cell: { node: Element } }) => {
    ran.set(cell.node, performance.now());
  };
  const onAct = (event: Event) => {
    if (!(event instanceof KeyboardEvent && MODIFIERS.includes(event.key))) {
      acted = performance.now();
    }
  };
  runs.connect(onRun);
  ACTS.forEach(kind => page.addEventListener(kind, onAct, { capture: true, passive: true }));
  return () => {
    runs.disconnect(onRun);
    ACTS.forEach(kind => page.removeEventListener(kind, onAct, { capture: true }));
  };
}

/**
 * What brings the end of a growing answer back into sight, if it is in sight now, or if its cell was just run: whoever has scrolled
 * up to read, or elsewhere, is left there.
 */
export function following(node: HTMLElement): (() => void) | null {
  const scroller = node.closest<HTMLElement>('.jp-WindowedPanel-outer');
  if (!scroller) {
    return null;
  }
  const { top, bottom: edge } = scroller.getBoundingClientRect();
  const end = node.getBoundingClientRect().bottom;
  if (end < top || (end > edge + SLACK_PX && !justRun(node.closest('.jp-Cell')))) {
    return null;
  }
  return () => {
    const hidden = node.getBoundingClientRect().bottom - edge;
    if (hidden > 0) {
      scroller.scrollTop += hidden;
    }
  };
}

/** Whether the reader ran this cell and did nothing since: it is the active cell, or, after Shift+Enter, the one above that. */
function justRun(cell: Element | null): boolean {
  const active = [cell, cell?.nextElementSibling].some(one => one?.classList.contains('jp-mod-active'));
  return active && (ran.get(cell!) ?? -Infinity) >= acted;
}
