import { describe, expect, it } from 'vitest';
import { drawChange, type IChange } from '../src/comparison';
import { difference, proposedCode } from '../src/proposal';
import { english } from './pages';

const CELL = 'a = 1\nb = 2\nprint(a + c)';
const MENDED = 'a = 1\nb = 2\nprint(a + b)';
const fence = (code: string, language = 'python') => '```' + language + '\n' + code + '\n```\n';
const lines = (before: string, after: string) =>
  difference(before, after).map(({ kind, pieces }) => {
    const sign = { same: ' ', removed: '-', added: '+' }[kind];
    return sign + pieces.map(({ text, changed }) => (changed ? `[${text}]` : text)).join('');
  });

describe('the corrected cell in an answer', () => {
  it.each([
    ['alone', fence(MENDED)],
    ['without a language', fence(MENDED, '')],
    ['beside the old cell', `You wrote:\n${fence(CELL)}\nIt should be:\n${fence(MENDED)}`],
    ['beside a shell command', fence('pip install x', 'bash') + fence(MENDED)],
    ['beside a small example', fence('print(b)') + fence(MENDED) + fence('# b is 2')],
    ['in a list', `1. So:\n\n   ${fence(MENDED).replace(/\n/g, '\n   ')}`],
    ['not yet closed', '```python\n' + MENDED]
  ])('is found: %s', (_, answer) => {
    expect(proposedCode(answer, CELL)).toBe(MENDED);
  });

  it('is none where there is no code', () => {
    expect(proposedCode('Write b in place of c.', CELL)).toBeNull();
    expect(proposedCode(fence('ls', 'bash') + fence('   '), CELL)).toBeNull();
  });
});

describe('a difference', () => {
  it('tells the words that differ where a line is replaced', () => {
    expect(lines(CELL, MENDED)).toEqual([' a = 1', ' b = 2', '-print(a + [c])', '+print(a + [b])']);
  });

  it.each([
    ['a', 'a\nb', [' a', '+b']],
    ['a\nb', 'a', [' a', '-b']],
    ['', 'a', ['+a']],
    ['a', '', ['-a']],
    ['a\nb', 'x\ny\nz', ['-a', '-b', '+x', '+y', '+z']],
    ['  a', 'a', ['-[  ]a', '+a']],
    ['a', 'a', [' a']]
  ])('of %j and %j', (before, after, expected) => {
    expect(lines(before, after)).toEqual(expected);
  });

  it('loses no character of either side', () => {
    const [before, after] = ['x\n\n  y\nz = "—"\n\nw', 'x\n y\n\nz = "—" \nw\n\nv'];
    const side = (kinds: string[]) =>
      difference(before, after)
        .filter(({ kind }) => kinds.includes(kind))
        .map(({ pieces }) => pieces.map(({ text }) => text).join(''))
        .join('\n');
    expect(side(['same', 'removed'])).toBe(before);
    expect(side(['same', 'added'])).toBe(after);
  });
});

describe('a change', () => {
  const drawn = (change: Partial<IChange>) => {
    const done: string[] = [];
    const deciding = {
      accept: () => done.push('accept'),
      reject: () => done.push('reject'),
      again: () => done.push('again')
    };
    const whole = { source: CELL, proposed: MENDED, finished: true, verdict: '', ...change } as IChange;
    return { node: drawChange(whole, deciding, english), done };
  };

  it('is decided by its buttons and by nothing else', () => {
    const { node, done } = drawn({});
    expect(done).toEqual([]);
    node.querySelectorAll('button').forEach(button => button.click());
    expect(done).toEqual(['accept', 'reject']);
    expect(node.textContent).toContain('1 line added, 1 line removed');
  });

  it('can be looked at again after a verdict', () => {
    const { node, done } = drawn({ verdict: 'rejected' });
    expect(node.textContent).toContain('You rejected this change.');
    const accepted = (source: string) => drawn({ verdict: 'accepted', source }).node.textContent;
    expect(accepted(MENDED)).not.toContain('changed since');
    expect(accepted(CELL)).toContain('The cell was changed since.');
    node.querySelector('button')!.click();
    expect(done).toEqual(['again']);
  });

  it.each([
    [{ proposed: null }, 'holds no code block'],
    [{ proposed: CELL }, 'repeats the cell as it is'],
    [{ source: null }, 'no longer in the notebook']
  ])('is not offered with %j', (change, why) => {
    const { node } = drawn(change);
    expect(node.textContent).toContain(why);
    expect(node.querySelector('button')).toBeNull();
  });

  it('says so if the answer was cut off', () => {
    expect(drawn({ finished: false }).node.textContent).toContain('cut off');
    expect(drawn({}).node.textContent).not.toContain('cut off');
  });

  it('folds what is far from it', () => {
    const long = Array.from({ length: 20 }, (_, at) => `line ${at}`).join('\n');
    const { node } = drawn({ source: long, proposed: `${long}\nmore` });
    expect(node.querySelector('summary')!.textContent).toBe('17 unchanged lines');
    expect(node.querySelectorAll('.llm-Diff > .llm-Diff-line').length).toBe(4);
  });

  it('is text, whatever the model wrote', () => {
    const { node } = drawn({ proposed: '<img src=x onerror=alert(1)>\u202e' });
    expect(node.querySelector('img')).toBeNull();
    expect(node.textContent).toContain('<img src=x onerror=alert(1)>\ufffd');
  });
});
