import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { following, watchReader } from '../src/following';

/** A notebook of 500 px whose first cell's answer ends at `end`; `active` is the number of the active cell. */
function page(end: number, active: number) {
  document.body.innerHTML =
    '<div class="jp-WindowedPanel-outer"><div class="jp-Cell"><p></p></div><div class="jp-Cell"></div><div class="jp-Cell"></div></div>';
  const [scroller, answer] = ['.jp-WindowedPanel-outer', 'p'].map(s =>
    document.querySelector<HTMLElement>(s)!
  );
  scroller.getBoundingClientRect = () => ({ top: 0, bottom: 500 }) as DOMRect;
  answer.getBoundingClientRect = () => ({ bottom: end - scroller.scrollTop }) as DOMRect;
  const cells = document.querySelectorAll('.jp-Cell');
  cells[active].classList.add('jp-mod-active');
  return { scroller, answer, cell: cells[0] };
}

const runs = new Signal<object, { cell: { node: Element } }>({});
const run = (node: Element) => runs.emit({ cell: { node } });
const act = (event: Event) => {
  vi.advanceTimersByTime(10);
  document.body.dispatchEvent(event);
};
let end: () => void;

beforeEach(() => {
  vi.useFakeTimers();
  end = watchReader(document, runs);
});
afterEach(() => {
  end();
  vi.useRealTimers();
});

it.each([0, 1])('brings an answer into sight whose cell was just run, with the cell %i active', active => {
  const { scroller, answer, cell } = page(900, active);
  act(new WheelEvent('wheel', { bubbles: true }));
  run(cell);
  act(new KeyboardEvent('keydown', { key: 'Shift', bubbles: true }));
  following(answer)!();
  expect(scroller.scrollTop).toBe(400);
});

it.each([
  ['wheel', ''],
  ['pointerdown', ''],
  ['keydown', 'a']
])('leaves the reader who did something since: %s %s', (kind, key) => {
  const { answer, cell } = page(900, 1);
  run(cell);
  act(key ? new KeyboardEvent(kind, { key, bubbles: true }) : new MouseEvent(kind, { bubbles: true }));
  expect(following(answer)).toBeNull();
});

it('leaves the reader whose cells run further up, or on another page', () => {
  const above = page(900, 2);
  run(above.cell);
  expect(following(above.answer)).toBeNull();
  expect(following(page(900, 0).answer)).toBeNull();
});

it('follows an end that is in sight, and none that was scrolled out above', () => {
  expect(following(page(520, 2).answer)).not.toBeNull();
  expect(following(page(-10, 2).answer)).toBeNull();
});
