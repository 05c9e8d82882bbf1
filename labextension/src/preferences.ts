/** What the user set in the settings editor: how conversations look, and the rules that the kernel is told of. */

import { Signal } from '@lumino/signaling';

export type ShowReasoning = 'fold' | 'full' | 'hide';

export interface ILook {
  reasoning: ShowReasoning;
  openPictures: boolean;
  updatesPerSecond: number;
  modelCard: boolean;
}

const PLAIN: ILook = { reasoning: 'fold', openPictures: true, updatesPerSecond: 30, modelCard: true };

export class Preferences {
  readonly changed = new Signal<this, void>(this);
  private _look: ILook = PLAIN;
  private _rules: Record<string, unknown> | null = null;

  get look(): ILook {
    return this._look;
  }

  /**
   * By the names that `llm_magics/kernel/rules.py` reads; the kernel judges them. Null as long as the settings are not read: to
   * tell the kernel of no rules then would let it do what they forbid.
   */
  get rules(): Record<string, unknown> | null {
    return this._rules;
  }

  /** Take the settings as the registry gives them; what is missing or mistyped becomes its default. */
  set(settings: Record<string, any>): void {
    const rate = Number(settings.updatesPerSecond) || PLAIN.updatesPerSecond;
    this._look = {
      reasoning: readReasoning(settings.reasoning) ?? PLAIN.reasoning,
      openPictures: settings.openPictures !== false,
      updatesPerSecond: Math.min(Math.max(rate, 1), 60),
      modelCard: settings.modelCard !== false
    };
    const { rules } = settings;
    this._rules = rules && typeof rules === 'object' && !Array.isArray(rules) ? { ...rules } : {};
    this.changed.emit();
  }
}

/** One of the three words, or null. */
export function readReasoning(word: unknown): ShowReasoning | null {
  return word === 'fold' || word === 'full' || word === 'hide' ? word : null;
}
