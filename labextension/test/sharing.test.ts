import { afterEach, describe, expect, it, vi } from 'vitest';
import { SETTLED_MS, Sharing, twins } from '../src/sharing';
import { MIME_TYPE } from '../src/transcript';

/** A page's end of a shared document, in which `others` are open too: number and kernel session. */
function page(id: number, session: string, others: Map<number, object>) {
  const awareness = {
    clientID: id,
    getStates: () => others,
    setLocalStateField: (field: string, value: unknown) => others.set(id, { [field]: value })
  };
  const sharing = new Sharing(() => ({ collaborative: true, sharedModel: { awareness } }) as any);
  sharing.appear(session);
  return sharing;
}

afterEach(() => void vi.useRealTimers());

describe('a document that is one page’s own', () => {
  it('is written by it, whoever ran the cell', () => {
    const sharing = new Sharing(() => ({ collaborative: false, sharedModel: {} }) as any);
    sharing.appear('mine');
    expect([sharing.writes('mine'), sharing.writes('other'), sharing.stepsIn('other')]).toEqual([
      true,
      true,
      false
    ]);
  });
});

describe('what two pages have written', () => {
  const output = (turn: string, more = {}) => ({
    output_type: 'display_data',
    data: { [MIME_TYPE]: { turn, ...more } }
  });
  const stream = { output_type: 'stream', text: 'printed' };
  const done = { steps: [] };

  it('loses its twins, and of each turn a complete output stays', () => {
    const outputs = [
      stream,
      output('a'),
      output('b', done),
      output('a', done),
      output('b'),
      stream,
      output('a', done)
    ];
    expect(twins(outputs)).toEqual([1, 4, 6]);
  });

  it('keeps the first where all are alike', () => {
    expect(twins([output('a'), output('a'), output('b', done), output('b', done)])).toEqual([1, 3]);
    expect(twins([output('a'), stream, stream, output('b')])).toEqual([]);
  });
});

describe('a shared document', () => {
  it('is written by the page that ran the cell', () => {
    const states = new Map<number, object>([[1, {}]]); // the server's own entry counts for nothing
    const [ran, other] = [page(9, 'ran', states), page(2, 'other', states)];
    expect([ran.writes('ran'), other.writes('ran')]).toEqual([true, false]);
    expect([ran.stepsIn('ran'), other.stepsIn('ran')]).toEqual([false, false]);
  });

  it('is written by exactly one other page when that page is gone, and not at once', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const states = new Map<number, object>([[1, {}]]);
    const [ran, low, high] = [page(1, 'ran', states), page(2, 'low', states), page(3, 'high', states)];
    states.delete(1);
    expect([low, high].map(one => one.stepsIn('ran'))).toEqual([false, false]);
    vi.advanceTimersByTime(SETTLED_MS);
    expect([low, high].map(one => one.stepsIn('ran'))).toEqual([true, false]);
    states.delete(2);
    expect(high.stepsIn('ran')).toBe(true);
    ran.appear('ran');
    expect(high.stepsIn('ran')).toBe(false);
  });
});
