/**
 * The turns that are being written now, rebuilt from the kernel's messages (`llm_magics/views/live.py` describes them).
 *
 * Messages of a turn are numbered. A page that lacks one says hello again and is sent everything so far.
 */

import { Signal } from '@lumino/signaling';
import { applyOperations, type Operation } from './transcript';

export interface ILiveTurn {
  readonly cell: string;
  /** Number of the last message taken in; 0 while there is no snapshot. */
  n: number;
  /** The transcript's JSON as it grows; null before the first snapshot. */
  json: Record<string, any> | null;
}

/** Ask the kernel for everything so far of a turn. */
export type Hello = (turn: string) => void;

const HELLO_AGAIN_MS = 1000;

export class LiveTurns {
  readonly changed = new Signal<this, string>(this);
  private _turns = new Map<string, ILiveTurn>();
  private _asked = new Map<string, number>();

  /** Take one message of kind begin, snapshot or delta. `wanted` says whether this page shows that cell. */
  receive(message: Record<string, any>, wanted: (cell: string) => boolean, hello: Hello): void {
    const { kind, turn, cell, n } = message;
    const known = this._turns.get(turn);
    if (kind === 'snapshot') {
      if (known || wanted(cell)) {
        this._turns.set(turn, { cell, n, json: message.transcript });
        this._asked.delete(turn);
        this.changed.emit(turn);
      }
    } else if (kind === 'begin' && wanted(cell)) {
      this._turns.set(turn, { cell, n: 0, json: null });
      this._ask(turn, hello);
      this.changed.emit(turn);
    } else if (kind === 'delta' && (known || wanted(cell))) {
      this._delta(known, message.ops, turn, n, hello);
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
