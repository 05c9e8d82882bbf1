/** The model card: a line in the status bar, and a panel with every loaded model behind it. */

import { Popup, showPopup } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { make, setText } from './dom';
import { bytesText, cardText, contextText, type IModelGauge, memoryOf, readGauge, spokenText } from './gauge';

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

  /** Bring the line up to date; `wanted` is whether the user wants it at all. */
  refresh(wanted = true): void {
    const models = this._shown();
    const model = models.find(model => model.current) ?? models[0];
    setText(this._button, model ? cardText(model) : '');
    const spoken = model ? `Loaded model: ${spokenText(model)}` : '';
    this._button.setAttribute('aria-label', spoken);
    this._button.title = spoken;
    this.setHidden(!model || !wanted);
  }

  private _open(): void {
    this._popup?.dispose();
    const body = new Widget({ node: panel(this._shown()) });
    this._popup = showPopup({ body, anchor: this, align: 'right' });
  }
}

function panel(models: IModelGauge[]): HTMLElement {
  const heads = ['model', 'context', 'tokens/s', 'GPU', 'host'].map(head =>
    make('th', '', { scope: 'col' }, head)
  );
  return make(
    'div',
    'llm-CardPanel',
    { role: 'region', 'aria-label': 'Loaded models', tabindex: '0' },
    make(
      'table',
      '',
      {},
      make('thead', '', {}, make('tr', '', {}, ...heads)),
      make('tbody', '', {}, ...models.map(panelRow))
    )
  );
}

function panelRow(model: IModelGauge): HTMLElement {
  const cell = (...children: (Node | string)[]) => make('td', '', {}, ...children);
  const { gpu, host } = memoryOf(model);
  const name = make('th', '', { scope: 'row' }, make('div', '', {}, model.name));
  if (model.current) {
    name.append(make('div', 'llm-CardPanel-note', {}, 'answers %%chat'));
  }
  if (model.description) {
    name.append(make('div', 'llm-CardPanel-note', {}, model.description));
  }
  const context = cell(model.context_size ? contextText(model) : '–');
  if (model.context_size) {
    const share = Math.min(model.context_used / model.context_size, 1);
    context.append(
      make('meter', '', { value: String(share), 'aria-label': 'share of the context that is used' })
    );
  }
  const speed = model.tokens_per_second ? model.tokens_per_second.toFixed(1) : '';
  const figures = [speed, bytesText(gpu), bytesText(host)].map(figure => cell(figure || '–'));
  return make('tr', '', {}, name, context, ...figures);
}
