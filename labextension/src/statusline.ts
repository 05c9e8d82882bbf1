/** The last line of an answer: how it stands, and while it is written the seconds and a button that stops it. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { button, make, setText } from './dom';

export class StatusLine {
  readonly node: HTMLElement;
  private _text = make('span', 'llm-Status-text', { role: 'status' });
  private _elapsed = make('span', 'llm-Status-elapsed', { 'aria-hidden': 'true' });
  private _stop: HTMLButtonElement;
  private _began = 0;
  private _timer = 0;

  /** `onSecond` is called each second while the answer is written. */
  constructor(
    private readonly _trans: TranslationBundle,
    label: string,
    onStop: () => void,
    private readonly _onSecond: () => void = () => undefined
  ) {
    this._stop = button(_trans.__('Stop'), label, onStop);
    this._stop.hidden = true;
    this.node = make('div', 'llm-Status', {}, this._text, this._elapsed, this._stop);
  }

  /** Show how the answer stands; `writing` says whether this page follows it as it is written. */
  show(text: string, writing: boolean): void {
    setText(this._text, text);
    this._stop.hidden = !writing;
    if (writing && !this._timer) {
      this._began = performance.now();
      this._timer = window.setInterval(() => this._tick(), 1000);
    } else if (!writing) {
      this.dispose();
      setText(this._elapsed, '');
    }
  }

  dispose(): void {
    window.clearInterval(this._timer);
    this._timer = 0;
  }

  private _tick(): void {
    setText(this._elapsed, this._trans.__('%1 s', Math.round((performance.now() - this._began) / 1000)));
    this._onSecond();
  }
}
