/**
 * Who writes into a document that several pages share, as with jupyter-collaboration.
 *
 * What two pages write into it at the same place is there twice. So one page writes what came of a cell: the one that ran it. Only
 * when that page is gone, another one steps in for it: of those that are there, the one with the lowest number. Each page tells its
 * kernel session to the others by the document's awareness, in which the pages that have it open are listed.
 *
 * A page that has just come, or that a slow network has cut off, may not know of the others, and write too. So every page takes
 * twins out again when the document has brought them together. All of them keep the same one, and taking out the same output twice
 * is taking it out once.
 */

import type { IOutput } from '@jupyterlab/nbformat';
import type { INotebookModel } from '@jupyterlab/notebook';
import { MIME_TYPE } from './transcript';

const FIELD = 'llm_magics';

/** After this time a page knows of the others, what they wrote has come, and a page that is only reconnecting is back. */
export const SETTLED_MS = 5000;

/** This long after a change its twins are looked for, once for all the changes of that time. */
export const HEALED_MS = 200;

/** Which of a cell's outputs repeat a turn that another one shows: of each turn one stays, the first that is complete. */
export function twins(outputs: readonly IOutput[]): number[] {
  const kept = new Map<string, number>();
  const taken: number[] = [];
  outputs.forEach((output, at) => {
    const json = (output.data as Record<string, any> | undefined)?.[MIME_TYPE];
    const before = json?.turn ? kept.get(json.turn) : undefined;
    if (!json?.turn) {
      return;
    }
    if (before === undefined) {
      kept.set(json.turn, at);
    } else if (isFinal(json) && !isFinal((outputs[before].data as Record<string, any>)[MIME_TYPE])) {
      taken.push(before);
      kept.set(json.turn, at);
    } else {
      taken.push(at);
    }
  });
  return taken.sort((a, b) => a - b);
}

/** Whether this is a turn's last form: it alone has the record of the turn's steps. */
export function isFinal(json: Record<string, any>): boolean {
  return json.steps !== undefined;
}

/** What is used of the awareness that y-protocols makes. */
interface IAwareness {
  readonly clientID: number;
  getStates(): Map<number, Record<string, any>>;
  setLocalStateField(field: string, value: unknown): void;
}

export class Sharing {
  private _session = '';
  private _since = Infinity;

  constructor(private readonly _model: () => INotebookModel | null) {}

  /** Say who we are; call it when the document is ready, and for each new kernel session. */
  appear(session: string): void {
    this._session = session;
    this._since = Math.min(this._since, performance.now());
    this._tell({ session });
    window.removeEventListener('pagehide', this._leave);
    window.addEventListener('pagehide', this._leave);
  }

  dispose(): void {
    window.removeEventListener('pagehide', this._leave);
  }

  /** Whether this page writes what came of a cell that the page with that kernel session ran: its own, or into its own copy. */
  writes(session: string): boolean {
    return this._awareness() === null || session === this._session;
  }

  /** Whether other pages may have written what this one wrote. */
  get shared(): boolean {
    return this._awareness() !== null;
  }

  /** Whether the page with that kernel session is gone and it is on this one to step in. */
  stepsIn(session: string): boolean {
    const awareness = this._awareness();
    if (!awareness || performance.now() - this._since < SETTLED_MS) {
      return false;
    }
    const pages = [...awareness.getStates()].filter(([, state]) => state?.[FIELD]);
    const first = Math.min(...pages.map(([id]) => id));
    return first === awareness.clientID && !pages.some(([, state]) => state[FIELD].session === session);
  }

  /** Without this the others would take a closed page for one that is there, for half a minute. */
  private _leave = () => this._tell(null);

  private _tell(value: { session: string } | null): void {
    this._awareness()?.setLocalStateField(FIELD, value);
  }

  private _awareness(): IAwareness | null {
    const model = this._model();
    return model?.collaborative ? ((model.sharedModel as any).awareness ?? null) : null;
  }
}
