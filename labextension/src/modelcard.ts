/** The model card: a line in the status bar, and a panel with every loaded model behind it. */

import { Popup, showPopup } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { make, setText } from './dom';
import { cardText, type IModelGauge, readGauge } from './gauge';

/** What is loaded in the kernel of each notebook; `changed` is emitted with the notebook's key. */
export class Gauges {
  readonly changed = new Signal<this, void>(this);
  private _models = new WeakMap<object, IModelGauge[]>();

  set(notebook: object, models: unknown): void {
    this._models.set(notebook, Array.isArray(models) ? models.map(readGauge) : []);
    this.changed.emit();
  }

  get(notebook: object | null): IModelGauge[] {
    return (notebook && this._models.get(notebook)) || [];
  }
}

/** The status bar's item. `shown` gives the models of the notebook in front. */
export class ModelCard extends Widget {
  private _button = make('button', 'llm-Card', { type: 'button' });
  private _popup: Popup | null = null;

  constructor(private readonly _shown: () => IModelGauge[]) {
    super();
    this.node.append(this._button);
    this._button.addEventListener('click', () => this._open());
    this.refresh();
  }

  refresh(): void {
    const models = this._shown();
    const text = models.length ? cardText(models.find(model => model.current) ?? models[0]) : '';
    setText(this._button, text);
    this._button.setAttribute('aria-label', `Loaded models: ${text}`);
    this.setHidden(!text);
  }

  private _open(): void {
    this._popup?.dispose();
    const body = new Widget({ node: panel(this._shown()) });
    this._popup = showPopup({ body, anchor: this, align: 'right' });
  }
}

function panel(models: IModelGauge[]): HTMLElement {
  const rows = models.map(model =>
    make(
      'tr',
      '',
      {},
      make('th', '', { scope: 'row' }, model.current ? `${model.name} (answers)` : model.name),
      make('td', '', {}, model.description),
      make('td', '', {}, cardText({ ...model, name: '' }))
    )
  );
  return make(
    'div',
    'llm-CardPanel',
    { role: 'region', 'aria-label': 'Loaded models' },
    make('table', '', {}, ...rows)
  );
}
