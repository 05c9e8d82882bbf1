import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { LiveTurns } from '../src/live';
import { withPictures } from '../src/pictures';
import { applyOperations, MIME_TYPE, readTranscript } from '../src/transcript';
import { TranscriptView } from '../src/view';
import { call, NotingHost, said, transcript } from './pages';

function open(...args: Parameters<TranscriptView['update']>): { view: TranscriptView; host: NotingHost } {
  const host = new NotingHost();
  const view = new TranscriptView(host);
  view.update(...args);
  return { view, host };
}

const text = (view: TranscriptView) => view.node.textContent ?? '';
const button = (view: TranscriptView, label: string) =>
  view.node.querySelector<HTMLButtonElement>(`button[aria-label="${label}"]`);

describe('a transcript', () => {
  it('is refused where its version is another', () => {
    expect(readTranscript({ version: 3, segments: [] })).toBeNull();
    expect(readTranscript({ version: '2', segments: [] })).toBeNull();
    expect(readTranscript('text')).toBeNull();
  });

  it('is drawn from the notebooks that version 1 saved', () => {
    for (const [name, words] of [
      ['v1-plain', 'The colour is red.'],
      ['v1-tools', 'draw_trees'],
      ['v1-threads', 'after the restart']
    ]) {
      const notebook = JSON.parse(readFileSync(`../tests/records/${name}.ipynb`, 'utf-8'));
      const outputs = notebook.cells.flatMap((cell: any) => cell.outputs ?? []);
      const saved = outputs.map((output: any) => output.data[MIME_TYPE]).filter(Boolean);
      const drawn = saved.map((json: unknown) => text(open(readTranscript(json)!, false).view));
      expect(saved.map((json: any) => json.version)).toContain(1);
      expect(drawn.join('\n')).toContain(words);
    }
  });

  it('finds its pictures in the HTML beside it', () => {
    const html = [
      '<img src="data:image/png;base64,AAAA" alt="a">',
      '<img src="data:image/jpeg;base64,/9j/" alt="b">'
    ];
    const tool = (data: unknown) => ({
      type: 'tool',
      outputs: [{ 'image/jpeg': data, 'text/plain': 'a plot' }]
    });
    const read = (data: unknown) =>
      readTranscript(withPictures({ version: 2, segments: [tool(data)] }, html.join('\n')))!;
    const drawn = open(read({ html: 1 }), false).view.node.querySelector('img')!;
    expect(drawn.src).toBe('data:image/jpeg;base64,/9j/');
    for (const nowhere of [{ html: 0 }, { html: 7 }, { html: '1' }, { html: 'length' }, null, 3]) {
      const { view } = open(read(nowhere), false);
      expect(view.node.querySelector('img')).toBeNull();
      expect(text(view)).toContain('a plot');
    }
    expect(withPictures('text', html)).toBe('text');
  });

  it('says that it is recorded, where it is', () => {
    const json = { version: 2, state: 'stop', segments: [], usage: { completion_tokens: 3 } };
    expect(text(open(readTranscript({ ...json, recorded: true })!, false).view)).toContain(' · recorded');
    expect(text(open(readTranscript({ ...json, recorded: false })!, false).view)).not.toContain('recorded');
  });

  it('is drawn whatever is missing in it', () => {
    const read = readTranscript({ version: 1, segments: [{ type: 'tool' }, { type: 'text' }, 7] })!;
    expect(text(open(read, false).view)).toContain('(unnamed tool)');
  });

  it('keeps the elements of what did not change', () => {
    const { view } = open(
      transcript([said('one'), call({ state: 'running', result: null })], 'running'),
      true
    );
    const before = [...view.node.querySelectorAll('.llm-Markdown, .llm-Tool')];
    view.update(transcript([said('one'), call(), said('two')]), true);
    expect([...view.node.querySelectorAll('.llm-Markdown, .llm-Tool')].slice(0, 2)).toEqual(before);
    expect(text(view)).toContain('two');
  });

  it('folds reasoning', () => {
    const { view } = open(transcript([{ type: 'reasoning', step: 0, text: 'hm' }]), false);
    expect(view.node.querySelector('details')?.open).toBe(false);
  });

  it('goes on with a text across a remark', () => {
    const notice = { type: 'notice', step: 0, text: 'careful', level: 'warning' } as const;
    const { view } = open(transcript([said('```\na'), notice], 'running'), true);
    view.update(transcript([said('```\nab'), notice], 'running'), true);
    expect(view.node.querySelector('code')?.textContent?.trim()).toBe('ab');
  });

  it('shows what a tool was called with, gave, and how long it took', () => {
    const { view } = open(
      transcript([call({ printed: 'asking', outputs: [{ 'text/plain': '3 degrees' }] })]),
      false
    );
    for (const part of ['weather', 'city: Oslo', 'done · 1.50 s', 'asking', '3 degrees', 'rain']) {
      expect(text(view)).toContain(part);
    }
  });

  it('shows names and arguments as text', () => {
    const evil = '<img src=x onerror=alert(1)>';
    const { view } = open(
      transcript([call({ name: evil, arguments: evil, printed: evil, result: evil })]),
      false
    );
    expect(view.node.querySelector('img')).toBeNull();
    expect(text(view)).toContain(evil);
  });
});

describe('calls that did not run', () => {
  const refused = (more = {}) => call({ state: 'refused', seconds: 0, ...more });
  const rows = (view: TranscriptView) =>
    [...view.node.querySelectorAll('.llm-NotRun')].map(row => row.querySelector('summary')!.textContent);

  it.each([
    [[call(), refused()], ['1 repeated call, not run']],
    [[call(), refused(), refused({ arguments: '{ "city":"Oslo" }' })], ['2 repeated calls, not run']],
    [[call(), refused({ arguments: '{"city": "Rome"}' })], ['1 call, not run']],
    [[call(), refused(), said('\n'), refused()], ['2 repeated calls, not run']],
    [
      [call(), refused(), said('Hm.'), refused()],
      ['1 repeated call, not run', '1 repeated call, not run']
    ],
    [[call(), refused({ is_error: true })], []]
  ])('are one folded row: %#', (segments, lines) => {
    const { view } = open(transcript(segments), false);
    expect(rows(view)).toEqual(lines);
    expect(view.node.querySelectorAll('.llm-Tool').length).toBe(
      segments.filter(s => s.type === 'tool').length
    );
    expect([...view.node.querySelectorAll<HTMLDetailsElement>('.llm-NotRun')].some(row => row.open)).toBe(
      false
    );
  });

  it('go into the row while the turn runs, and it stays as the reader left it', () => {
    const { view } = open(transcript([call(), refused({ state: 'ready' })], 'running'), true);
    expect(rows(view)).toEqual([]);
    view.update(transcript([call(), refused()], 'running'), true);
    expect(rows(view)).toEqual(['1 repeated call, not run']);
    view.node.querySelector<HTMLDetailsElement>('.llm-NotRun')!.open = true;
    view.update(transcript([call(), refused(), refused(), said('rain')]), true);
    expect(rows(view)).toEqual(['2 repeated calls, not run']);
    expect(view.node.querySelector<HTMLDetailsElement>('.llm-NotRun')!.open).toBe(true);
    expect(text(view)).not.toContain('refused');
  });

  it('are not those that somebody denied: they keep a row that says so', () => {
    const ask = { shown: 'x', digest: 'd1', reason: '' };
    const { view } = open(transcript([call({ state: 'refused', ask, is_error: true })]), false);
    expect(rows(view)).toEqual([]);
    expect(text(view)).toContain('denied by you');
  });
});

describe('characters that turn text around or drive a terminal', () => {
  it.each(['\u202e', '\u2066', '\x9b', '\u001b[31m\u202d'])('are shown as such: %j', evil => {
    const text = `a${evil}b`;
    const ask = { shown: text, digest: '', reason: text };
    const more = { name: text, arguments: JSON.stringify({ x: text }), printed: text, result: text };
    const outputs = [{ 'text/plain': text }, { 'text/html': `<b>${text}</b>` }, { 'text/markdown': text }];
    const { view } = open(
      transcript([
        said(text),
        { type: 'reasoning', step: 0, text },
        { type: 'notice', step: 0, text, level: 'info' },
        call({ ...more, outputs, source: text, warnings: [text], recovered: text }),
        call({ state: 'asking', ask })
      ]),
      false
    );
    expect(view.node.innerHTML).toContain('\ufffd');
    // eslint-disable-next-line no-control-regex
    expect(view.node.innerHTML).not.toMatch(/[\x1b\x9b\u202a-\u202e\u2066-\u2069]/);
  });
});

describe('a turn that runs', () => {
  it('can be stopped while it is live, and only then', () => {
    const { view, host } = open(transcript([], 'running'), true);
    button(view, 'Stop this answer')!.click();
    expect(host.noted).toEqual(['stop t1']);
    view.update(transcript([], 'running'), false);
    expect(button(view, 'Stop this answer')!.hidden).toBe(true);
    expect(text(view)).toContain('unfinished when it was saved');
    view.dispose();
  });

  it('counts a running tool’s seconds', () => {
    vi.useFakeTimers();
    const { view } = open(
      transcript([call({ state: 'running', result: null, seconds: 0 })], 'running'),
      true
    );
    vi.advanceTimersByTime(3000);
    expect(text(view)).toContain('running · 3 s');
    view.update(transcript([call()]), true);
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  it('asks, once, and shows exactly what would run', () => {
    vi.useFakeTimers();
    const ask = { shown: 'rm(token="•••")', digest: '', reason: 'It deletes.' };
    const question = { id: 'q1', at: 0, digest: 'd1', shown: 'rm(token="x")', reason: 'It deletes.' };
    const asking = transcript([call({ state: 'asking', ask, result: null })], 'running');
    const { view, host } = open(asking, true, question);
    expect(view.node.querySelector('details')!.open).toBe(true);
    expect(view.node.querySelector('.llm-Approval')?.textContent).toContain('rm(token="x")');
    expect(text(view)).not.toContain('•••');
    const deny = button(view, 'Deny this call')!;
    deny.click();
    deny.click();
    expect(host.noted.filter(n => n.startsWith('deny'))).toEqual(['deny q1 d1 of t1']);
    vi.advanceTimersByTime(5000);
    expect(deny.disabled).toBe(false); // the decision was lost on the way
    view.update(asking, true, null);
    expect(button(view, 'Deny this call')).toBeNull();
    expect(text(view)).toContain('with what looks like a secret masked');
    expect(text(view)).not.toContain('rm(token="x")');
    view.dispose();
    vi.useRealTimers();
  });

  it('has no buttons for a question that nobody waits for', () => {
    const ask = { shown: 'x', digest: 'd1', reason: '' };
    const asking = transcript([call({ state: 'asking', ask })], 'running');
    const { view } = open(asking, true);
    expect(button(view, 'Approve this call')).toBeNull();
    const another = { id: 'q1', at: 1, digest: 'd1', shown: 'x', reason: '' };
    view.update(asking, true, another);
    expect(button(view, 'Approve this call')).toBeNull();
    view.update(transcript([call()], 'running'), true, { ...another, at: 0 });
    expect(button(view, 'Approve this call')).toBeNull();
  });

  it.each([
    ['stop', '11 tokens · 5.5 tokens/s · first token after 0.20 s · context 99 of 4,096'],
    ['interrupted', 'interrupted · 11 tokens'],
    ['length', 'cut off · 11 tokens']
  ])('ends with a quiet line: %s', (state, line) => {
    const usage = {
      completion_tokens: 11,
      completion_seconds: 2,
      time_to_first_token: 0.2,
      context_used: 99,
      context_size: 4096
    };
    expect(text(open(transcript([], state, { usage }), false).view)).toContain(line);
  });
});

describe('deltas', () => {
  const json = () => ({
    version: 1,
    turn: 't1',
    state: 'running',
    segments: [{ type: 'text', step: 0, text: 'He' }] as any[]
  });

  it('append, change and add', () => {
    const data: any = json();
    applyOperations(data, [
      ['+', 0, 'text', 'llo'],
      ['=', 1, { type: 'tool', name: 'f', arguments: '' }],
      ['+', 1, 'arguments', '{}'],
      ['head', { state: 'stop' }]
    ]);
    expect(data.segments).toEqual([
      { type: 'text', step: 0, text: 'Hello' },
      { type: 'tool', name: 'f', arguments: '{}' }
    ]);
    expect(data.state).toBe('stop');
  });

  function page(): { live: LiveTurns; hellos: string[]; receive: (message: Record<string, any>) => void } {
    const live = new LiveTurns();
    const hellos: string[] = [];
    const receive = (message: Record<string, any>) =>
      live.receive(
        { turn: 't1', cell: 'mine', ...message },
        cell => cell === 'mine',
        turn => hellos.push(turn)
      );
    return { live, hellos, receive };
  }

  it('are asked for when a turn begins in a cell of this page, and only then', () => {
    const { hellos, receive } = page();
    receive({ kind: 'begin', cell: 'other', turn: 't0' });
    receive({ kind: 'begin' });
    expect(hellos).toEqual(['t1']);
  });

  it('are taken in order, each once', () => {
    const { live, receive } = page();
    receive({ kind: 'begin' });
    receive({ kind: 'snapshot', n: 4, transcript: json() });
    receive({ kind: 'delta', n: 5, ops: [['+', 0, 'text', 'l']] });
    receive({ kind: 'delta', n: 5, ops: [['+', 0, 'text', 'l']] });
    expect(live.get('t1')!.json!.segments[0].text).toBe('Hel');
  });

  it.each([
    ['came before this page', []],
    ['was lost', [{ kind: 'snapshot', n: 1, transcript: json() }]]
  ])('are mended by a hello where one %s', (_, before) => {
    const { live, hellos, receive } = page();
    before.forEach(receive);
    receive({ kind: 'delta', n: 3, ops: [['+', 0, 'text', 'x']] });
    receive({ kind: 'delta', n: 4, ops: [['+', 0, 'text', 'x']] });
    expect(hellos).toEqual(['t1']);
    receive({ kind: 'snapshot', n: 4, transcript: json() });
    receive({ kind: 'delta', n: 5, ops: [['+', 0, 'text', 'y']] });
    expect(live.get('t1')!.json!.segments[0].text).toBe('Hey');
  });

  it('leave a question beside the turn, where nothing saves it, until it is answered', () => {
    const { live, receive } = page();
    const question = { kind: 'question', id: 'q1', at: 0, digest: 'd1', shown: 'secret', reason: '' };
    receive({ ...question, turn: 'unknown' });
    expect(live.get('unknown')).toBeUndefined();
    receive({ kind: 'snapshot', n: 1, transcript: json() });
    receive(question);
    receive({ kind: 'snapshot', n: 2, transcript: json() }); // another page said hello
    expect(live.get('t1')!.question!.shown).toBe('secret');
    expect(JSON.stringify(live.get('t1')!.json)).not.toContain('secret');
    receive({ kind: 'answered', id: 'q0' });
    expect(live.get('t1')!.question).not.toBeNull();
    receive({ kind: 'answered', id: 'q1' });
    expect(live.get('t1')!.question).toBeNull();
  });

  it('that do not fit are thrown away, and the whole is asked for', () => {
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const { hellos, receive } = page();
    receive({ kind: 'snapshot', n: 1, transcript: json() });
    receive({ kind: 'delta', n: 2, ops: [['+', 7, 'text', 'x']] });
    expect(hellos).toEqual(['t1']);
  });
});
