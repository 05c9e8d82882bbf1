/** The one action that mends an error, as `llm_magics/views/action.py` describes it: a sentence and its button. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';
import { button, make, printable } from './dom';
import type { IHost } from './host';

export const ACTION_MIME_TYPE = 'application/vnd.llm-magics.action+json';

/** An output may come from a file that somebody else wrote: its button runs one line, and only of these magics. */
const LINE = /^%(?:load_ext|load_model|unload_model|models|thread|tools|llm)\b[^\n\r]*$/;

export class ActionRenderer extends Widget implements IRenderMime.IRenderer {
  constructor(private readonly _host: IHost) {
    super();
    this.addClass('llm-Renderer');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const { trans } = this._host;
    const { label, code } = (model.data[ACTION_MIME_TYPE] ?? {}) as Record<string, unknown>;
    const line = typeof code === 'string' ? code.trim() : '';
    const node = make('div', 'llm-CellBar', {
      role: 'group',
      'aria-label': trans.__('What mends this error')
    });
    if (LINE.test(line)) {
      const named = printable(typeof label === 'string' && label ? label : line);
      const spoken = trans.__('%1: runs %2 above, and then this cell again', named, line);
      const run = button(named, spoken, () => {
        run.disabled = this._host.runAbove(line, this.node);
      });
      run.classList.add('llm-mod-primary');
      node.append(run, make('span', '', {}, trans.__('runs %1 above, and then this cell again', line)));
    } else {
      node.append(make('code', '', {}, printable(line)));
    }
    this.node.replaceChildren(node);
  }
}
