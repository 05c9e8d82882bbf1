/** The MIME renderer: draws a transcript from the notebook, or, while its turn is being written, from the kernel's deltas. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';
import { make } from './dom';
import { following } from './following';
import type { IHost } from './host';
import type { LiveTurns } from './live';
import { withPictures } from './pictures';
import type { Preferences } from './preferences';
import { MIME_TYPE, readTranscript, type ITranscript } from './transcript';
import { TranscriptView } from './view';

/** The share of the page's time that drawing may take: after a drawing of 10 ms the next waits at least 30 ms. */
const REST_FACTOR = 3;

export class TranscriptRenderer extends Widget implements IRenderMime.IRenderer {
  private _view: TranscriptView;
  private _saved: ITranscript | null = null;
  private _static: HTMLElement | null = null;
  private _frame = 0;
  private _rest = 0;
  private _stale = false;

  constructor(
    private readonly _host: IHost,
    private readonly _live: LiveTurns,
    private readonly _preferences: Preferences
  ) {
    super();
    this._view = new TranscriptView(_host);
    this.node.append(this._view.node);
    this.addClass('llm-Renderer');
    this._live.changed.connect(this._onLive, this);
    this._preferences.changed.connect(this._onLook, this);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this._saved = readTranscript(withPictures(model.data[MIME_TYPE], model.data['text/html']));
    this._static?.remove();
    this._static = null;
    this._view.node.hidden = !this._saved;
    if (this._saved) {
      this._draw();
    } else {
      await this._drawStatic(model);
    }
  }

  /** Show the static form, which is in the same bundle for everybody who cannot read the transcript. */
  private async _drawStatic(model: IRenderMime.IMimeModel): Promise<void> {
    const { trans } = this._host;
    const why = [
      trans.__(
        'This conversation was saved by another version of llm_magics, so it is shown without its controls.'
      ),
      trans.__('To have them, update llm_magics where JupyterLab runs.')
    ].join(' ');
    const notice = make('div', 'llm-Notice', { 'data-level': 'warning' }, why);
    this._static = make('div', 'llm-Static', {}, notice);
    this.node.append(this._static);
    const drawn = await this._host.drawStatic(model);
    if (drawn) {
      this._static?.append(drawn);
    }
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._live.changed.disconnect(this._onLive, this);
      this._preferences.changed.disconnect(this._onLook, this);
      window.cancelAnimationFrame(this._frame);
      window.clearTimeout(this._rest);
      this._view.dispose();
    }
    super.dispose();
  }

  /** Another look: draw from the beginning. */
  private _onLook(): void {
    this._view.dispose();
    this._view.node.remove();
    this._view = new TranscriptView(this._host);
    this._view.node.hidden = this._static !== null;
    this.node.append(this._view.node);
    if (this._saved) {
      this._draw();
    }
  }

  private _onLive(_: LiveTurns, turn: string): void {
    if (turn !== this._saved?.turn) {
      return;
    }
    if (this._frame || this._rest) {
      this._stale = true;
      return;
    }
    this._frame = window.requestAnimationFrame(() => {
      this._frame = 0;
      this._stale = false;
      const began = performance.now();
      this._draw();
      const took = performance.now() - began;
      performance.measure('llm_magics:draw', { start: began, duration: took });
      const least = 1000 / this._preferences.look.updatesPerSecond - took;
      this._rest = window.setTimeout(
        () => {
          this._rest = 0;
          if (this._stale) {
            this._onLive(this._live, turn);
          }
        },
        Math.max(took * REST_FACTOR, least)
      );
    });
  }

  private _draw(): void {
    const saved = this._saved!;
    const live = saved.state === 'running' ? this._live.get(saved.turn) : undefined;
    const transcript = (live?.json && readTranscript(live.json)) || saved;
    const keepInSight = live ? following(this.node) : null;
    this._view.update(transcript, live !== undefined, live?.question ?? null);
    keepInSight?.();
  }
}
