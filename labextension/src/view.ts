/** One turn, drawn: its segments in order and a status line. Only what changed is touched. */

import { make, printable, setText } from './dom';
import { folded, notRunLine, type Item } from './folding';
import type { IHost } from './host';
import { jsonLines, jsonSummary } from './jsontext';
import type { IQuestion } from './live';
import { MarkdownView } from './markdownview';
import { statusText } from './status';
import { StatusLine } from './statusline';
import { ToolView } from './toolview';
import type { INoticeSegment, ITextSegment, ITranscript } from './transcript';

interface IItemView {
  readonly type: string;
  readonly node: HTMLElement;
  /** `last` says that this is the item which is being written; `question` is the open one about it. */
  update(item: Item, transcript: ITranscript, last: boolean, question: IQuestion | null): void;
  tick?(): void;
}

export class TranscriptView {
  readonly node = make('div', 'llm-Transcript', { role: 'group' });
  private _segments = make('div');
  private _views: IItemView[] = [];
  private _line: StatusLine;
  private _turn = '';

  constructor(private readonly _host: IHost) {
    const { trans } = _host;
    const stop = () => this._host.stop(this._turn);
    const tick = () => this._views.forEach(view => view.tick?.());
    this._line = new StatusLine(trans, trans.__('Stop this answer'), stop, tick);
    this.node.append(this._segments, this._line.node);
  }

  /** Show the transcript; `live` says that it is being written in this page, `question` what waits for a person in it. */
  update(transcript: ITranscript, live: boolean, question: IQuestion | null = null): void {
    const running = transcript.state === 'running';
    const { trans } = this._host;
    const label = transcript.model ? trans.__('Answer of %1', transcript.model) : trans.__('Answer');
    this._turn = transcript.turn;
    this.node.setAttribute('aria-label', label);
    this.node.dataset.state = transcript.state;
    this._drawSegments(transcript, running, question);
    this._line.show(statusText(transcript, live, trans), running && live);
  }

  dispose(): void {
    this._line.dispose();
  }

  private _drawSegments(transcript: ITranscript, running: boolean, question: IQuestion | null): void {
    const items = folded(transcript.segments);
    let writing = items.length - 1;
    while (writing > 0 && items[writing].type === 'notice') {
      writing--; // a remark in between does not end the text that is being written
    }
    items.forEach((item, at) => {
      if (this._views[at]?.type !== item.type) {
        this._views.splice(at).forEach(view => view.node.remove());
        const view = viewOf(item.type, this._host);
        this._views.push(view);
        this._segments.append(view.node);
      }
      const asked = question && transcript.segments[question.at] === item ? question : null;
      this._views[at].update(item, transcript, running && at >= writing, asked);
    });
    this._views.splice(items.length).forEach(view => view.node.remove());
  }
}

function viewOf(type: Item['type'], host: IHost): IItemView {
  switch (type) {
    case 'text':
      return textView(host);
    case 'reasoning':
      return reasoningView(host);
    case 'tool': {
      const view = new ToolView(host);
      return {
        type,
        node: view.node,
        update: (s, transcript, _last, asked) => s.type === 'tool' && view.update(s, transcript.turn, asked),
        tick: () => view.tick()
      };
    }
    case 'not run':
      return notRunView(host);
    case 'notice': {
      const node = make('div', 'llm-Notice');
      const update = (s: Item) => {
        node.dataset.level = (s as INoticeSegment).level;
        setText(node, printable((s as INoticeSegment).text));
      };
      return { type, node, update };
    }
  }
}

/** Text is markdown; if it is JSON, a code block that folds. */
function textView(host: IHost): IItemView {
  const view = new MarkdownView(host);
  const node = make('div', '', {}, view.node);
  const summary = make('summary');
  let fold: HTMLDetailsElement | null = null;
  const update = (s: Item, _transcript: ITranscript, last: boolean) => {
    const { text } = s as ITextSegment;
    const lines = jsonLines(text);
    if (lines !== null && !fold) {
      fold = make('details', 'llm-Json', {}, summary, view.node);
      fold.open = true;
      node.replaceChildren(fold);
    } else if (lines === null && fold) {
      fold = null;
      node.replaceChildren(view.node);
    }
    if (lines !== null) {
      setText(summary, jsonSummary(text, host.trans));
    }
    view.update(lines === null ? text : '```json\n' + lines + '\n```', !last);
  };
  return { type: 'text', node, update };
}

/** Calls that did not run: one row with their number, which unfolds to show them. */
function notRunView(host: IHost): IItemView {
  const summary = make('summary');
  const node = make('details', 'llm-NotRun', {}, summary);
  const views: ToolView[] = [];
  const update = (item: Item, transcript: ITranscript) => {
    if (item.type !== 'not run') {
      return;
    }
    setText(summary, notRunLine(item, host.trans));
    item.calls.forEach((call, at) => {
      const view = (views[at] ??= new ToolView(host));
      if (view.node.parentNode !== node) {
        node.append(view.node);
      }
      view.update(call, transcript.turn, null);
    });
    views.splice(item.calls.length).forEach(view => view.node.remove());
  };
  return { type: 'not run', node, update };
}

/** Reasoning is folded unless the cell or the settings say otherwise; its summary says whether the model is still at it. */
function reasoningView(host: IHost): IItemView {
  const { trans } = host;
  const view = new MarkdownView(host);
  const summary = make('summary');
  let shown = '';
  const node = make('details', 'llm-Reasoning', {}, summary, view.node);
  const update = (s: Item, transcript: ITranscript, last: boolean) => {
    const show = transcript.reasoning ?? host.look.reasoning;
    if (show !== shown) {
      shown = show;
      node.open = show === 'full';
      node.hidden = show === 'hide';
    }
    setText(summary, last ? trans.__('Reasoning…') : trans.__('Reasoning'));
    view.update((s as ITextSegment).text, !last);
  };
  return { type: 'reasoning', node, update };
}
