/**
 * Everything that the extension shows, drawn with a given translator.
 *
 * What comes from a kernel, a model or a person is Greek here, and our own words are Latin: so they are told apart on the page.
 */

import { pythonLanguage } from '@codemirror/lang-python';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { ACTION_MIME_TYPE, ActionRenderer } from '../src/action';
import { CellBar, explain, fix } from '../src/cellbar';
import { editTool, runTool } from '../src/celltool';
import { drawChange, type IChange } from '../src/comparison';
import { COLUMNS_TYPE, ColumnsRenderer } from '../src/columns';
import extension from '../src/index';
import { LiveTurns } from '../src/live';
import { type ILoaded, ModelCard } from '../src/modelcard';
import { Preferences } from '../src/preferences';
import { TranscriptRenderer } from '../src/renderer';
import { nameError, parametersError } from '../src/toolmetadata';
import { type ITranscript, MIME_TYPE, type Segment } from '../src/transcript';
import { TranscriptView } from '../src/view';
import { call, NotingHost, said, transcript } from './pages';

type Drawn = Element | string | (Element | string)[];
type Draw = (trans: TranslationBundle) => Drawn | Promise<Drawn>;

const greek = (more: Parameters<typeof call>[0] = {}) =>
  call({ name: 'βροχή', arguments: '{"πόλη": "Αθήνα"}', result: 'βρέχει', ...more });
const ask = { shown: 'βροχή()', digest: 'd1', reason: 'Σβήνει.' };
const asking = greek({ state: 'asking', ask, result: null });
const question = { id: 'q1', at: 0, digest: 'd1', shown: 'βροχή()', reason: '' };
const notRun = (name: string) => greek({ name, state: 'refused', seconds: 0 });
const reasoning: Segment = { type: 'reasoning', step: 0, text: 'Χμ.' };
const usage = {
  completion_tokens: 11,
  completion_seconds: 2,
  time_to_first_token: 0.2,
  context_used: 99,
  context_size: 4096
};

function view(trans: TranslationBundle, ...args: Parameters<TranscriptView['update']>): Element {
  const made = new TranscriptView(new NotingHost(trans));
  made.update(...args);
  made.dispose();
  return made.node;
}

const turn = (segments: Segment[], state = 'stop', more: Partial<ITranscript> = {}) =>
  transcript(segments, state, { model: 'μ', ...more });
const saved =
  (...args: Parameters<typeof turn>): Draw =>
  trans =>
    view(trans, turn(...args), false);

const STATES = ['writing', 'ready', 'running', 'done', 'failed', 'interrupted', 'cut'];
const ENDINGS = ['stop', 'tool_calls', 'length', 'interrupted', 'error'];

const LOADED: ILoaded = {
  models: [
    {
      name: 'μ',
      current: true,
      description: 'μικρό',
      context_size: 4096,
      context_used: 812,
      tokens_per_second: 43.2,
      memory: { host: 412e6, Κ0: 1.5e9 }
    }
  ],
  gpus: [
    { name: 'Κ', used: 40e9, total: 141e9, busy: 12 },
    { name: 'Λ', used: 0, total: 24e9, busy: null }
  ]
};

/** The dialog that `open` shows, closed again; `answer` fills it in first. */
async function dialog(open: () => Promise<void>, answer?: (form: HTMLElement) => void): Promise<Element> {
  const done = open();
  const shown = await waitFor('.jp-Dialog .jp-Dialog-footer');
  const node = shown.closest<HTMLElement>('.jp-Dialog')!;
  const copy = node.cloneNode(true) as Element;
  answer?.(node);
  node.querySelector<HTMLButtonElement>(answer ? 'button.jp-mod-accept' : 'button.jp-mod-reject')!.click();
  if (answer) {
    await waitFor('.jp-Dialog .jp-Dialog-footer', node);
    copy.append(document.querySelector('.jp-Dialog')!.cloneNode(true));
    document.querySelector<HTMLButtonElement>('.jp-Dialog button.jp-mod-accept')!.click();
  }
  await done;
  return copy;
}

async function waitFor(selector: string, not?: Element): Promise<Element> {
  for (;;) {
    const found = [...document.querySelectorAll(selector)].find(element => !not?.contains(element));
    if (found) {
      return found;
    }
    await new Promise(resolve => setTimeout(resolve, 0));
  }
}

const plugin = (id: string): any => extension.find(one => one.id === `llm-magics:${id}`);

/** The commands and the badge of the plugin that makes cells tools, and the domains that it asked `load` for. */
export async function cells(load: (domain: string) => TranslationBundle): Promise<string[]> {
  const { activate, optional } = plugin('cells');
  const shown: string[] = [];
  const commands = { addCommand: (_: string, { label, caption }: any) => shown.push(label, caption) };
  const notebooks = { widgetAdded: new Signal<object, any>({}) };
  const signals = () => ({ contentChanged: new Signal({}), metadataChanged: new Signal({}) });
  const source = { getSource: () => '%%tool _()' };
  const cell = {
    model: { type: 'code', metadata: {}, sharedModel: source, ...signals() },
    node: document.createElement('div'),
    disposed: new Signal({})
  };
  const panel = {
    content: { widgets: [cell] },
    context: { ready: Promise.resolve(), model: { cells: { changed: new Signal({}) } } }
  };
  activate({ commands }, notebooks, {}, optional?.length ? { languageCode: 'el', load } : null);
  notebooks.widgetAdded.emit(panel);
  await panel.context.ready;
  return [...shown, cell.node.dataset.llmTool!];
}

/** The commands of the plugin that has errors explained. */
export async function errors(load: (domain: string) => TranslationBundle): Promise<string[]> {
  const { activate } = plugin('errors');
  const shown: string[] = [];
  const commands = { addCommand: (_: string, { label, caption }: any) => shown.push(label, caption) };
  const palette = { addItem: ({ category }: any) => shown.push(category) };
  const notebooks = { widgetAdded: new Signal<object, any>({}) };
  activate({ commands }, notebooks, { languageCode: 'el', load }, palette);
  return shown;
}

function cellOf(source: string, outputs: object[]): any {
  const signals = { contentChanged: new Signal({}), metadataChanged: new Signal({}) };
  const list = { toJSON: () => outputs, changed: new Signal({}) };
  const sharedModel = { getSource: () => source };
  const model = {
    type: 'code',
    id: 'α',
    sharedModel,
    outputs: list,
    getMetadata: () => undefined,
    ...signals
  };
  return { model, ready: Promise.resolve(), layout: null };
}

function panelOf(cell: any): any {
  const model = { cells: { changed: new Signal({}), [Symbol.iterator]: () => [][Symbol.iterator]() } };
  return { content: { widgets: [cell], codeMimetype: 'text/x-ipython' }, context: { model } };
}

function bar(trans: TranslationBundle, source: string, outputs: object[]): Element {
  const cell = cellOf(source, outputs);
  return new CellBar(panelOf(cell), cell, trans).node;
}

/** The words that a button puts below the first line of a new cell. */
async function asked(press: (panel: any) => Promise<void>): Promise<string> {
  const panel = panelOf(cellOf('α', []));
  let source = '';
  panel.content.model = { sharedModel: { insertCell: (_: number, cell: any) => (source = cell.source) } };
  await press(panel).catch(() => undefined); // there is no kernel to run it
  return source.split('\n').slice(1).join('\n');
}

export const DRAWN: Record<string, Draw> = {
  'a code block, a table and a picture': saved([
    said('- [x] α\n- [ ] β\n\n```\nα\n```\n\n```β\nα\n```\n\n|α|β|\n|-|-|\n|1|2|\n\n![α](https://1.2)')
  ]),
  'code that was copied': trans => {
    const node = view(trans, turn([said('```\nα\n```')]), false);
    node.querySelector<HTMLButtonElement>('.llm-Code-bar button')!.click();
    return node;
  },
  'an answer that is JSON': trans =>
    ['{"α": 1}', '{"α": 1, "β": 2}', '[1]', '[1, 2]', '{"α"'].map(text =>
      view(trans, turn([said(text)]), false)
    ),
  reasoning: trans =>
    [true, false].map(live => view(trans, turn([reasoning], live ? 'running' : 'stop'), live)),
  'a tool row': saved([
    greek({
      source: 'α = 1',
      printed: 'α',
      recovered: 'α',
      warnings: ['α'],
      outputs: [
        { 'image/png': 'aGk=' },
        { 'text/html': '<table><tr><td>α</td></tr></table>' },
        { 'text/markdown': 'α' },
        { 'application/json': 1 }
      ]
    })
  ]),
  'the states of a tool row': trans =>
    STATES.map(state => view(trans, turn([greek({ state })]), false)).concat(
      view(trans, turn([greek({ state: 'refused', ask, is_error: true })]), false),
      view(trans, turn([greek({ state: 'refused', ask, result: 'nobody could be asked' })]), false),
      view(trans, turn([greek({ state: 'refused', is_error: true, name: '' })]), false)
    ),
  'an approval question': trans => view(trans, turn([asking], 'running'), true, question),
  'a question that was open when it was saved': trans => [
    view(trans, turn([asking], 'running'), false),
    view(trans, turn([greek({ state: 'asking', ask: { ...ask, shown: '•••' } })]), false)
  ],
  'calls that did not run': trans =>
    [[notRun('α')], [notRun('α'), notRun('β')], [greek(), notRun('βροχή')]]
      .concat([[greek(), notRun('βροχή'), notRun('βροχή')]])
      .map(segments => view(trans, turn(segments), false)),
  'the status line': trans =>
    ENDINGS.map(state => view(trans, turn([], state, { usage, recorded: true }), false)).concat(
      view(trans, turn([], 'stop', { usage: { ...usage, completion_tokens: 1 }, model: '' }), false),
      view(trans, turn([], 'running'), false),
      view(trans, turn([], 'running'), true),
      view(trans, turn([], 'running', { progress: { done: 1, total: 2 } }), true)
    ),
  'the seconds of a turn that runs': async trans => {
    const made = new TranscriptView(new NotingHost(trans));
    made.update(turn([], 'running'), true);
    (made as any)._line._tick();
    const shown = made.node.cloneNode(true) as Element;
    made.dispose();
    return shown;
  },
  'a conversation of another version': async trans => {
    const made = new TranscriptRenderer(new NotingHost(trans), new LiveTurns(), new Preferences());
    await made.renderModel({ data: { [MIME_TYPE]: { version: 99 } }, trusted: true } as any);
    return made.node;
  },
  'answers side by side': async trans => {
    const made = new ColumnsRenderer(new NotingHost(trans));
    await made.renderModel({ data: { [COLUMNS_TYPE]: { version: 1, running: true } }, trusted: true } as any);
    (made as any)._line.dispose();
    return made.node;
  },
  'the model card': trans => {
    const card = new ModelCard(() => LOADED, trans);
    document.body.append(card.node);
    card.node.querySelector('button')!.click();
    const shown = [card.node, document.querySelector('.llm-CardPanel')!];
    return shown.map(node => node.cloneNode(true) as Element);
  },
  'the form that makes a cell a tool': trans =>
    dialog(() => editTool({ metadata: {}, sharedModel: { getSource: () => '' } } as any, null, trans)),
  'the form that runs a tool': trans => {
    const model = { metadata: { llm_magics: { tool: { name: 'β' } } }, sharedModel: { getSource: () => '' } };
    return dialog(() => runTool({} as any, { model } as any, trans));
  },
  'an error in the form': trans => [
    nameError('β β', trans),
    parametersError('β β', pythonLanguage.parser, trans)
  ],
  'commands and badge': trans => cells(() => trans),
  'commands about errors': trans => errors(() => trans),
  'the bar below an error': trans => [
    bar(trans, 'x', [{ output_type: 'error', ename: 'Λ', evalue: 'λ', traceback: ['-', 'λ'] }]),
    bar(trans, '%%chat', [
      { output_type: 'stream', name: 'stderr', text: 'UsageError: Cell magic `%%chat` not found.' }
    ])
  ],
  "what a model is asked about a cell's error": async trans => [
    await asked(panel => explain(panel, panel.content.widgets[0], trans)),
    await asked(panel => fix(panel, panel.content.widgets[0], trans))
  ],
  'a change to a cell': trans =>
    [
      { proposed: 'α\nβ', finished: false },
      { proposed: 'α\nβ\nγ' },
      { source: 'α\nβ', proposed: '' },
      { source: `${'α\n'.repeat(9)}β\nγ`, proposed: `${'α\n'.repeat(9)}` },
      { source: `${'α\n'.repeat(4)}β`, proposed: 'α\n'.repeat(4) },
      { proposed: null },
      { proposed: 'α' },
      { source: null },
      { verdict: 'accepted' as const },
      { verdict: 'accepted' as const, proposed: 'α' },
      { verdict: 'rejected' as const }
    ].map(change => {
      const whole: IChange = { source: 'α', proposed: 'β', finished: true, verdict: '', ...change };
      return drawChange(
        whole,
        { accept: () => undefined, reject: () => undefined, again: () => undefined },
        trans
      );
    }),
  "an error's action": async trans => {
    const action = new ActionRenderer(new NotingHost(trans));
    await action.renderModel({ data: { [ACTION_MIME_TYPE]: { label: 'Λ', code: '%llm' } } } as any);
    return action.node;
  }
};
