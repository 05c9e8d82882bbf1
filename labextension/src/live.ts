/**
 * The turns that are being written now, rebuilt from the kernel's messages (`llm_magics/kernel/page/live.py` describes them).
 *
 * Messages of a turn are numbered. A page that lacks one says hello again and is sent everything so far.
 */

import { Signal } from '@lumino/signaling';
import { applyOperations, type Operation } from './transcript';

/** A call that waits for a person. It is never part of a turn's JSON, because that is saved and this is not masked. */
export interface IQuestion {
  readonly id: string;
  /** The number of the segment that is asked about. */
  readonly at: number;
  readonly digest: string;
  /** Exactly what would run. */
  readonly shown: string;
  readonly reason: string;
}

export type Decision = 'approve' | 'deny' | 'always';

export interface ILiveTurn {
  readonly cell: string;
  /** The kernel session of the page that ran the cell. */
  readonly session: string;
  /** Number of the last message taken in; 0 while there is no snapshot. */
  n: number;
  /** The transcript's JSON as it grows; null before the first snapshot. */
  json: Record<string, any> | null;
  /** The question that is open, if one is. */
  question: IQuestion | null;
}

/** Ask the kernel for everything so far of a turn. */
export type Hello = (turn: string) => void;

const HELLO_AGAIN_MS = 1000;

export class LiveTurns {
  readonly changed = new Signal<this, string>(this);
  private _turns = new Map<string, ILiveTurn>();
  private _asked = new Map<string, number>();

  /** Take one message of kind begin, snapshot, delta, question or answered. `wanted` says whether this page shows that cell. */
  receive(message: Record<string, any>, wanted: (cell: string) => boolean, hello: Hello): void {
    const { kind, turn, cell, session, n } = message;
    const known = this._turns.get(turn);
    if (kind === 'snapshot') {
      if (known || wanted(cell)) {
        this._turns.set(turn, {
          cell,
          session,
          n,
          json: message.transcript,
          question: known?.question ?? null
        });
        this._asked.delete(turn);
        this.changed.emit(turn);
      }
    } else if (kind === 'begin' && wanted(cell)) {
      this._turns.set(turn, { cell, session, n: 0, json: null, question: null });
      this._ask(turn, hello);
      this.changed.emit(turn);
    } else if (kind === 'delta' && (known || wanted(cell))) {
      this._delta(known, message.ops, turn, n, hello);
    } else if (kind === 'question' && known) {
      known.question = readQuestion(message);
      this.changed.emit(turn);
    } else if (kind === 'answered' && known?.question?.id === message.id) {
      known!.question = null;
      this.changed.emit(turn);
    }
  }

  get(turn: string): ILiveTurn | undefined {
    return this._turns.get(turn);
  }

  /** The turns that are being written, with their cells. */
  entries(): [string, ILiveTurn][] {
    return [...this._turns];
  }

  /** A turn is over, or its kernel is gone: what it has come to stays where it is shown. */
  end(turn: string): void {
    if (this._turns.delete(turn)) {
      this._asked.delete(turn);
      this.changed.emit(turn);
    }
  }

  private _delta(
    known: ILiveTurn | undefined,
    ops: Operation[],
    turn: string,
    n: number,
    hello: Hello
  ): void {
    if (known?.json && n === known.n + 1) {
      try {
        applyOperations(known.json, ops);
        known.n = n;
        this.changed.emit(turn);
        return;
      } catch (error) {
        console.warn('llm_magics: a delta did not fit; asking for the whole turn.', error);
        known.n = -1;
      }
    }
    if (!known?.json || n > known.n) {
      this._ask(turn, hello);
    }
  }

  private _ask(turn: string, hello: Hello): void {
    const now = performance.now();
    if (now - (this._asked.get(turn) ?? -Infinity) >= HELLO_AGAIN_MS) {
      this._asked.set(turn, now);
      hello(turn);
    }
  }
}

function readQuestion(message: Record<string, any>): IQuestion {
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return {
    id: text(message.id),
    at: typeof message.at === 'number' ? message.at : -1,
    digest: text(message.digest),
    shown: text(message.shown),
    reason: text(message.reason)
  };
}
