/** The model card: a line in the status bar, and a panel with every loaded model behind it. */

import { Popup, showPopup } from '@jupyterlab/statusbar';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { make, setText } from './dom';
import {
  busyText,
  bytesText,
  cardText,
  contextText,
  type IGpuGauge,
  type IModelGauge,
  memoryOf,
  readGauge,
  readGpus,
  spokenText,
  usedText
} from './gauge';

/** What is loaded in one kernel, and the GPUs that it uses. */
export interface ILoaded {
  models: IModelGauge[];
  gpus: IGpuGauge[];
}

/** What is loaded in the kernel of each notebook; `changed` is emitted with the notebook's key. */
export class Gauges {
  readonly changed = new Signal<this, void>(this);
  private _loaded = new WeakMap<object, ILoaded>();

  set(notebook: object, models: unknown, gpus: unknown): void {
    this._loaded.set(notebook, {
      models: Array.isArray(models) ? models.map(readGauge) : [],
      gpus: readGpus(gpus)
    });
    this.changed.emit();
  }

  get(notebook: object | null): ILoaded {
    return (notebook && this._loaded.get(notebook)) || { models: [], gpus: [] };
  }
}

/** The status bar's item. `shown` gives the models of the notebook in front. */
export class ModelCard extends Widget {
  private _button = make('button', 'llm-Card', { type: 'button' });
  private _popup: Popup | null = null;
  private _panel: HTMLElement | null = null;

  constructor(
    private readonly _shown: () => ILoaded,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.node.append(this._button);
    this._button.setAttribute('aria-expanded', 'false');
    this._button.addEventListener('click', () => (this._popup ? this._popup.dispose() : this._open()));
    this.refresh();
  }

  /** Bring the line, and the panel if it is open, up to date; `wanted` is whether the user wants it at all. */
  refresh(wanted = true): void {
    const trans = this._trans;
    const { models, gpus } = this._shown();
    const model = models.find(model => model.current) ?? models[0];
    setText(this._button, model ? cardText(model, gpus, trans) : '');
    const spoken = model ? trans.__('Loaded model: %1', spokenText(model, gpus, trans)) : '';
    this._button.setAttribute('aria-label', spoken);
    this._button.title = spoken;
    this._button.hidden = !model || !wanted; // the status bar shows and hides the item as it likes
    if (this._panel?.isConnected) {
      this._panel.replaceChildren(...tables(this._shown(), trans));
    }
  }

  /** Show the panel. It takes the focus, so that keys reach it; Escape closes it and gives the focus back. */
  private _open(): void {
    const trans = this._trans;
    const attributes = { role: 'region', 'aria-label': trans.__('Loaded models'), tabindex: '0' };
    this._panel = make('div', 'llm-CardPanel', attributes, ...tables(this._shown(), trans));
    const body = new Widget({ node: this._panel });
    const popup = (this._popup = showPopup({ body, anchor: this, align: 'right' }));
    this._button.setAttribute('aria-expanded', 'true');
    popup.disposed.connect(() => {
      this._popup = null;
      this._button.setAttribute('aria-expanded', 'false');
    });
    this._panel.addEventListener('keydown', event => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        popup.dispose();
        this._button.focus();
      }
    });
    this._panel.focus();
  }
}

/** The panel's tables: one of the models, and one of the GPUs where a model is on one. */
function tables({ models, gpus }: ILoaded, trans: TranslationBundle): HTMLElement[] {
  const ofModels = [
    trans.__('model'),
    trans.__('context'),
    trans.__('tokens/s'),
    trans.__('GPU'),
    trans.__('host')
  ];
  const ofGpus = [trans.__('GPU'), trans.__('memory in use'), trans.__('busy')];
  const rows = gpus.map(gpu => gpuRow(gpu, trans));
  return [
    table(
      ofModels,
      models.map(model => panelRow(model, trans))
    ),
    ...(rows.length ? [table(ofGpus, rows)] : [])
  ];
}

function table(heads: string[], rows: HTMLElement[]): HTMLElement {
  const cells = heads.map(head => make('th', '', { scope: 'col' }, head));
  return make(
    'table',
    '',
    {},
    make('thead', '', {}, make('tr', '', {}, ...cells)),
    make('tbody', '', {}, ...rows)
  );
}

function gpuRow(gpu: IGpuGauge, trans: TranslationBundle): HTMLElement {
  const share = gpu.total ? Math.min(gpu.used / gpu.total, 1) : 0;
  const memory = make('td', '', {}, usedText(gpu, trans));
  memory.append(meter(share, trans.__('share of the memory that is in use')));
  const busy = make('td', '', {}, gpu.busy === null ? '–' : busyText([gpu], trans));
  return make('tr', '', {}, make('th', '', { scope: 'row' }, gpu.name), memory, busy);
}

function meter(share: number, label: string): HTMLElement {
  return make('meter', '', { value: String(share), 'aria-label': label });
}

function panelRow(model: IModelGauge, trans: TranslationBundle): HTMLElement {
  const cell = (...children: (Node | string)[]) => make('td', '', {}, ...children);
  const { gpu, host } = memoryOf(model);
  const name = make('th', '', { scope: 'row' }, make('div', '', {}, model.name));
  if (model.current) {
    name.append(make('div', 'llm-CardPanel-note', {}, trans.__('answers %1', '%%chat')));
  }
  if (model.description) {
    name.append(make('div', 'llm-CardPanel-note', {}, model.description));
  }
  const context = cell(model.context_size ? contextText(model) : '–');
  if (model.context_size) {
    const share = Math.min(model.context_used / model.context_size, 1);
    context.append(meter(share, trans.__('share of the context that is used')));
  }
  const speed = model.tokens_per_second ? model.tokens_per_second.toFixed(1) : '';
  const figures = [speed, bytesText(gpu, trans), bytesText(host, trans)].map(figure => cell(figure || '–'));
  return make('tr', '', {}, name, context, ...figures);
}
