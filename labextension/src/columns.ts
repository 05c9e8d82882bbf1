/**
 * Answers side by side (`%%compare`, `%%chat --samples`): the kernel's own drawing, which marks the words that differ, with what a
 * single answer has on this page too: a Stop button and the seconds while it is written, and buttons on its code.
 */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { type Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { make } from './dom';
import { following } from './following';
import type { IHost } from './host';
import { codeBar } from './markdownview';
import { StatusLine } from './statusline';

export const COLUMNS_TYPE = 'application/vnd.llm-magics.columns+json';

export class ColumnsRenderer extends Widget implements IRenderMime.IRenderer {
  private _body = make('div');
  private _line: StatusLine;
  private _drawings = 0;
  private _running = false;

  constructor(private readonly _host: IHost) {
    super();
    const { trans } = _host;
    this._line = new StatusLine(trans, trans.__('Stop these answers'), () => _host.interrupt(this.node));
    this.node.append(this._body, this._line.node);
    this.addClass('llm-Renderer');
    this.addClass('llm-Columns');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const number = ++this._drawings;
    const drawn = await this._host.drawStatic(model);
    if (number !== this._drawings || this.isDisposed) {
      return; // a later drawing has overtaken this one
    }
    this._running = (model.data[COLUMNS_TYPE] as any)?.running === true;
    if (drawn && !this._running) {
      drawn.querySelectorAll('pre').forEach(pre => withButtons(pre, this._host));
    }
    const keepInSight = this._running ? following(this.node) : null;
    this._body.replaceChildren(...(drawn ? [drawn] : []));
    this._showLine();
    keepInSight?.();
  }

  override dispose(): void {
    this._line.dispose();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._showLine();
  }

  /** A comparison that was saved before its end, and one whose page was reloaded, is not written by this page any more. */
  private _showLine(): void {
    const live = this._running && this._host.isBusy(this.node);
    this._line.node.hidden = !live;
    this.node.dataset.state = live ? 'running' : 'done';
    this._line.show(this._host.trans.__('Answering'), live);
  }
}

function withButtons(pre: HTMLElement, host: IHost): void {
  const node = make('div', 'llm-Code');
  pre.replaceWith(node);
  node.append(
    codeBar(host, '', node, () => pre.textContent ?? ''),
    pre
  );
}
