/**
 * One notebook's end of the link to its kernel: hears the kernel's messages, answers its questions, and keeps what a turn came to
 * in the notebook even where JupyterLab cannot (after a reload, at a save in the middle of a turn).
 */

import type { ICellModel, ICodeCellModel } from '@jupyterlab/cells';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { IOutput } from '@jupyterlab/nbformat';
import type { INotebookModel } from '@jupyterlab/notebook';
import { Kernel, KernelMessage } from '@jupyterlab/services';
import type { ISharedCodeCell } from '@jupyter/ydoc';
import { plainOutputs } from './errors';
import type { LiveTurns } from './live';
import type { Preferences } from './preferences';
import { HEALED_MS, isFinal, SETTLED_MS, Sharing, twins } from './sharing';
import { MIME_TYPE } from './transcript';

const LINK = 'llm_magics';

type Json = Record<string, any>;

/** What a turn came to: its cell, the page that ran it, and the MIME bundle of its last display. */
interface IEnd {
  cell: string;
  session: string;
  data: Json;
  metadata: Json;
}

export class NotebookBridge {
  private _finished = new Set<string>();
  /** Turns that are over, and that another page of a shared document has to write. */
  private _awaited = new Map<string, IEnd>();
  private _sharing: Sharing;
  private _timer = 0;
  private _healing = 0;
  private _greeted: Kernel.IKernelConnection | null = null;
  /** The kernel that has told us that it has llm_magics. */
  private _known: Kernel.IKernelConnection | null = null;

  constructor(
    private readonly _context: DocumentRegistry.IContext<INotebookModel>,
    private readonly _live: LiveTurns,
    /** The kernels that were there before this page opened the notebook. */
    private readonly _before: Set<string>,
    private readonly _preferences: Preferences,
    private readonly _onModels: (models: unknown, gpus: unknown) => void
  ) {
    const session = _context.sessionContext;
    this._sharing = new Sharing(() => (_context.isReady ? _context.model : null));
    session.iopubMessage.connect((_, message) => this._onMessage(message as KernelMessage.IIOPubMessage));
    session.connectionStatusChanged.connect(() => this._greet());
    session.kernelChanged.connect(() => {
      _onModels([], []); // what was loaded was in the kernel before
      this._greet();
    });
    session.statusChanged.connect((_, status) => this._onStatus(status));
    _context.saveState.connect((_, state) => this._onSave(state));
    void _context.ready.then(() => {
      this._greet();
      _context.model?.contentChanged.connect(this._onContent, this);
    });
    const tell = () => this._known === this._kernel() && this._tellRules();
    _preferences.changed.connect(tell);
    _context.disposed.connect(() => {
      _preferences.changed.disconnect(tell);
      window.clearTimeout(this._timer);
      window.clearTimeout(this._healing);
      this._sharing.dispose();
    });
  }

  /** Whether this notebook shows the cell in which the turn runs. */
  owns(turn: string): boolean {
    const live = this._live.get(turn);
    return live !== undefined && this._cell(live.cell) !== undefined;
  }

  interrupt(): void {
    void this._kernel()?.interrupt();
  }

  /** Send a message that the kernel reads while it runs a cell. */
  send(content: Json): void {
    const kernel = this._kernel();
    if (!kernel || kernel.connectionStatus !== 'connected' || kernel.status === 'dead') {
      return;
    }
    const message = KernelMessage.createMessage({
      msgType: LINK as any, // a control message of our own: ipykernel looks its type up in a table
      channel: 'control',
      session: kernel.clientId,
      username: kernel.username,
      content: content as any
    });
    kernel.sendControlMessage(message as any, false, true);
  }

  private _kernel(): Kernel.IKernelConnection | null {
    return this._context.sessionContext.session?.kernel ?? null;
  }

  /** Ask a kernel that was there before this page for what the page missed. */
  private _greet(): void {
    const kernel = this._kernel();
    if (
      !kernel ||
      kernel === this._greeted ||
      kernel.connectionStatus !== 'connected' ||
      !this._context.isReady
    ) {
      return;
    }
    this._greeted = kernel;
    this._sharing.appear(kernel.clientId);
    if (this._before.has(kernel.id) && this._mentionsUs()) {
      this._introduce();
    }
  }

  /** Tell the user's rules, and then ask for what runs: the kernel takes our messages in this order. */
  private _introduce(): void {
    this._tellRules();
    this.send({ kind: 'hello', turn: '*' });
  }

  private _tellRules(): void {
    const settings = this._preferences.rules;
    if (settings) {
      this.send({ kind: 'settings', turn: '*', settings });
    }
  }

  /** A kernel without llm_magics would log our message as unknown: ask only where the notebook has to do with it. */
  private _mentionsUs(): boolean {
    return this._cells().some(cell => /llm_magics|%%chat/.test(cell.sharedModel.getSource()));
  }

  private _onMessage(message: KernelMessage.IIOPubMessage): void {
    const content = message.content as Json;
    switch (message.header.msg_type as string) {
      case 'comm_msg':
        if (content.comm_id === LINK) {
          this._onLink(content.data as Json);
        }
        return;
      case 'display_data':
      case 'update_display_data': {
        const json = content.data?.[MIME_TYPE];
        if (json?.turn && json.state !== 'running') {
          // After the output area has had its turn: it knows nothing of displays made before a reload.
          const ran = (message.parent_header as Json).session ?? '';
          const { cell = '', session = ran } = this._live.get(json.turn) ?? {};
          const end = { cell, session, data: content.data, metadata: content.metadata ?? {} };
          window.setTimeout(() => this._end(json.turn, end), 0);
        }
      }
    }
  }

  private _onLink(data: Json): void {
    this._known = this._kernel();
    switch (data.kind) {
      case 'here':
        this._introduce();
        return;
      case 'begin':
      case 'snapshot':
      case 'delta':
      case 'question':
      case 'answered':
        this._live.receive(
          data,
          cell => this._cell(cell) !== undefined,
          turn => this.send({ kind: 'hello', turn })
        );
        if (data.kind === 'snapshot') {
          this._show(data.turn, data.cell, data.session, display(data.transcript, {}));
        }
        return;
      case 'finished': {
        const { cell, session, bundle } = data;
        this._show(data.turn, cell, session, bundled(bundle, {}));
        this._end(data.turn, { cell, session, data: bundle, metadata: {} });
        return;
      }
      case 'ask':
        this._answer(data);
        return;
      case 'models':
        this._onModels(data.models, data.gpus);
    }
  }

  /**
   * Make sure that the turn has an output in its cell. Where this page ran the cell JupyterLab puts it there; after a reload, or in
   * a second tab, nothing else does.
   */
  private _show(turn: string, cellId: string, session: string, output: IOutput): void {
    const cell = this._cell(cellId);
    if (cell && cell.executionState !== 'running' && this._sharing.writes(session)) {
      this._add(turn, cell, output);
    }
  }

  /** Add the turn's output to the cell, if it is not there. */
  private _add(turn: string, cell: ICodeCellModel, output: IOutput): void {
    if (indexOfTurn(cell, turn) >= 0) {
      return;
    }
    const known = new Set(
      this._live
        .entries()
        .map(([id]) => id)
        .filter(id => id !== turn)
    );
    if (!cell.outputs.toJSON().some(output => known.has(turnOf(output)))) {
      cell.outputs.clear(); // left from before the run that is going on
    }
    cell.outputs.add(output);
  }

  /** A turn is over: write what it came to, or see that the page whose part that is does so. */
  private _end(turn: string, end: IEnd): void {
    if (this._sharing.writes(end.session)) {
      this._land(turn, end);
    } else {
      this._awaited.set(turn, end);
      this._watch();
    }
    this._live.end(turn);
  }

  /** Put the final bundle of a turn into its output, unless it is there already, e.g. because JupyterLab has put it there. */
  private _land(turn: string, { data, metadata }: IEnd): void {
    for (const cell of this._cells()) {
      const at = indexOfTurn(cell, turn);
      if (at >= 0 && !isSame(cell.outputs.get(at).data[MIME_TYPE] as Json, data[MIME_TYPE])) {
        cell.outputs.set(at, bundled(data, metadata));
      }
      if (at >= 0) {
        this._finished.add(turn);
      }
    }
  }

  /** Look after a while whether what other pages have to write is there, and write it if they are gone. */
  private _watch(): void {
    window.clearTimeout(this._timer);
    this._timer = window.setTimeout(() => {
      for (const [turn, end] of [...this._awaited]) {
        const cell = this._cell(end.cell);
        const at = cell ? indexOfTurn(cell, turn) : -1;
        const written = at >= 0 && isFinal(cell!.outputs.get(at).data[MIME_TYPE] as Json);
        if (cell && !written && !this._sharing.stepsIn(end.session)) {
          continue;
        }
        this._awaited.delete(turn);
        if (cell) {
          this._add(turn, cell, bundled(end.data, end.metadata));
          this._land(turn, end);
        }
      }
      if (this._awaited.size) {
        this._watch();
      }
    }, SETTLED_MS);
  }

  private _onContent(): void {
    if (this._sharing.shared && !this._healing) {
      this._healing = window.setTimeout(() => {
        this._healing = 0;
        this._heal();
      }, HEALED_MS);
    }
  }

  /** Take out of the shared document what another page has written too. */
  private _heal(): void {
    for (const { sharedModel } of this._cells()) {
      const cell = sharedModel as ISharedCodeCell;
      for (const at of twins(cell.getOutputs()).reverse()) {
        cell.updateOutputs(at, at + 1, []);
      }
    }
  }

  private _onStatus(status: Kernel.Status): void {
    if (['restarting', 'autorestarting', 'dead', 'terminating'].includes(status)) {
      this._onModels([], []);
      for (const [turn, { cell }] of this._live.entries()) {
        if (this._cell(cell)) {
          this._keep(turn, cell);
          this._live.end(turn);
        }
      }
    }
    this._greet();
  }

  private _onSave(state: DocumentRegistry.SaveState): void {
    if (state === 'started') {
      this._live.entries().forEach(([turn, { cell }]) => this._keep(turn, cell));
    } else if (state === 'completed') {
      this._finished.forEach(turn => this.send({ kind: 'saved', turn }));
      this._finished.clear();
    }
  }

  /** Write what a turn has come to so far into the notebook. */
  private _keep(turn: string, cellId: string): void {
    const cell = this._cell(cellId);
    const json = this._live.get(turn)?.json;
    const at = cell ? indexOfTurn(cell, turn) : -1;
    if (cell && json && at >= 0 && this._writes(this._live.get(turn)!.session)) {
      cell.outputs.set(at, display(json, cell.outputs.get(at).metadata as Json));
    }
  }

  private _answer(question: Json): void {
    const mine = !question.cell || this._cell(question.cell) !== undefined;
    if (question.what === 'rules' && question.session === this._kernel()?.clientId) {
      this._tellRules();
    } else if (question.what === 'cells' && mine) {
      this.send({ kind: 'reply', id: question.id, data: this._allCells().map(describe) });
    }
  }

  private _writes(session: string): boolean {
    return this._sharing.writes(session) || this._sharing.stepsIn(session);
  }

  private _allCells(): ICellModel[] {
    return this._context.isReady ? Array.from(this._context.model.cells) : [];
  }

  private _cells(): ICodeCellModel[] {
    return this._allCells().filter((cell): cell is ICodeCellModel => cell.type === 'code');
  }

  private _cell(id: string): ICodeCellModel | undefined {
    return this._cells().find(cell => cell.id === id);
  }
}

function indexOfTurn(cell: ICodeCellModel, turn: string): number {
  for (let at = 0; at < cell.outputs.length; at++) {
    if ((cell.outputs.get(at).data[MIME_TYPE] as Json | undefined)?.turn === turn) {
      return at;
    }
  }
  return -1;
}

/** Whether both are the final form of a turn, and no remark was added to one of them since its end. */
function isSame(there: Json, here: Json): boolean {
  return isFinal(there) && there.segments?.length === here.segments?.length;
}

function turnOf(output: IOutput): string {
  return (output.data as Json | undefined)?.[MIME_TYPE]?.turn ?? '';
}

/** A display of a turn that is not over: the record, and its text for readers without us, plain since nobody has made it safe. */
function display(json: Json, metadata: Json): IOutput {
  const text = json.segments
    .filter((segment: Json) => segment.type === 'text')
    .map((segment: Json) => segment.text)
    .join('\n\n');
  return bundled({ [MIME_TYPE]: structuredClone(json), 'text/plain': text }, metadata);
}

function bundled(data: Json, metadata: Json): IOutput {
  return { output_type: 'display_data', data, metadata };
}

function describe(cell: ICellModel): Json {
  const metadata = cell.metadata as Json;
  return {
    id: cell.id,
    type: cell.type,
    source: cell.sharedModel.getSource(),
    tags: metadata.tags ?? [],
    tool: metadata.llm_magics?.tool ?? null,
    ...(cell.type === 'code' ? plainOutputs((cell as ICodeCellModel).outputs.toJSON() as Json[]) : {})
  };
}
