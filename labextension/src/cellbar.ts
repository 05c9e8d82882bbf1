/** The bar below a code cell's outputs: buttons for its error, or the change that an answer proposes for another cell. */

import type { Cell, ICodeCellModel } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { type PanelLayout, Widget } from '@lumino/widgets';
import { askBelow, runAbove } from './cellactions';
import { drawChange, type Verdict } from './comparison';
import { button, make } from './dom';
import { offerFor } from './errors';
import { proposedCode } from './proposal';
import { KEY } from './toolmetadata';
import { MIME_TYPE, readTranscript, type ITranscript } from './transcript';

const LOAD = '%load_ext llm_magics';

/** What the metadata of a cell that asks for a fix says: of which cell, and what became of the answer of a turn. */
interface IFix {
  cell: string;
  turn: string;
  verdict: Verdict;
}

/** Keep a bar below each code cell of a notebook that has something to offer. */
export function followErrors(panel: NotebookPanel, trans: TranslationBundle): void {
  const followed = new WeakSet<Cell>();
  const follow = () => {
    for (const cell of panel.content.widgets) {
      if (cell.model.type === 'code' && !followed.has(cell)) {
        followed.add(cell);
        void cell.ready.then(() => {
          if (!cell.isDisposed) {
            const layout = cell.layout as PanelLayout;
            layout.insertWidget(layout.widgets.length - 1, new CellBar(panel, cell, trans)); // above the cell's footer
          }
        });
      }
    }
  };
  void panel.context.ready.then(() => {
    panel.context.model.cells.changed.connect(() => requestAnimationFrame(follow));
    follow();
  });
}

/** Whether the cell's error can be explained by a model. */
export function canExplain(cell: Cell | null): boolean {
  return cell?.model.type === 'code' && offerOf(cell.model as ICodeCellModel) === 'explain';
}

function questions(trans: TranslationBundle): { explain: string; fix: string } {
  const asked = trans.__('Fix this cell. Answer with the whole corrected cell in one Python code block.');
  return {
    explain: `%%chat --context prev\n${trans.__('Explain this error')}`,
    fix: `%%chat --context prev --tools none\n${asked}`
  };
}

/** Ask the model, in a cell below, to explain the error of `cell`. */
export function explain(panel: NotebookPanel, cell: Cell, trans: TranslationBundle): Promise<void> {
  const ask = questions(trans);
  return askBelow(panel, cell, ask.explain, [ask.fix]);
}

/** Ask the model, in a cell below, for a corrected form of `cell`; that cell's bar shows the change when the answer is there. */
export function fix(panel: NotebookPanel, cell: Cell, trans: TranslationBundle): Promise<void> {
  const ask = questions(trans);
  return askBelow(panel, cell, ask.fix, [ask.explain], { [KEY]: { fix: { cell: cell.model.id } } });
}

/** The bar of one cell. */
export class CellBar extends Widget {
  private readonly _model: ICodeCellModel;
  private _target: ICodeCellModel | null = null;
  private _shown = '';

  constructor(
    private readonly _panel: NotebookPanel,
    private readonly _cell: Cell,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this._model = _cell.model as ICodeCellModel;
    this.addClass('llm-CellBars');
    this._model.outputs.changed.connect(this.refresh, this);
    this._model.contentChanged.connect(this.refresh, this);
    this._model.metadataChanged.connect(this.refresh, this);
    _panel.context.model.cells.changed.connect(this.refresh, this);
    this.refresh();
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._follow(null);
      this._model.outputs?.changed.disconnect(this.refresh, this);
      this._model.contentChanged.disconnect(this.refresh, this);
      this._model.metadataChanged.disconnect(this.refresh, this);
      this._panel.context.model?.cells.changed.disconnect(this.refresh, this);
    }
    super.dispose();
  }

  /** Draw what the cell, its outputs and the cell that it is about say now. */
  refresh(): void {
    if (this.isDisposed || this._model.isDisposed) {
      return;
    }
    const asked = readFix(this._model);
    const turn = asked && finishedTurn(this._model);
    this._follow(asked && turn ? this._find(asked.cell) : null);
    if (asked && turn) {
      this._drawFix(asked, turn);
      return;
    }
    const python = this._panel.content.codeMimetype.includes('python');
    const offer = python ? offerOf(this._model) : null;
    this._show(offer ?? '', () => (offer === 'load' ? this._loading() : this._explaining()));
  }

  private _drawFix(asked: IFix, turn: ITranscript): void {
    const source = this._target?.sharedModel.getSource() ?? null;
    const answer = turn.segments.flatMap(segment => (segment.type === 'text' ? [segment.text] : []));
    const change = {
      source,
      proposed: proposedCode(answer.join('\n\n'), source ?? ''),
      finished: turn.state === 'stop',
      verdict: asked.turn === turn.turn ? asked.verdict : ''
    } as const;
    const decide = (verdict: Verdict) => this._decide({ ...asked, turn: turn.turn, verdict });
    const deciding = {
      accept: () => {
        this._target?.sharedModel.setSource(change.proposed!);
        decide('accepted');
        this._goTo(asked.cell);
      },
      reject: () => {
        decide('rejected');
        this.node.querySelector('button')?.focus();
      },
      again: () => {
        decide('');
        this.node.querySelector('button')?.focus();
      }
    };
    this._show(JSON.stringify(change), () => drawChange(change, deciding, this._trans));
  }

  private _decide({ cell, turn, verdict }: IFix): void {
    const kept = { ...(this._model.getMetadata(KEY) as Record<string, any>) };
    this._model.setMetadata(KEY, { ...kept, fix: verdict ? { cell, turn, verdict } : { cell } });
  }

  /** The cell that was changed is to be run next. */
  private _goTo(id: string): void {
    const notebook = this._panel.content;
    notebook.activeCellIndex = notebook.widgets.findIndex(({ model }) => model.id === id);
    notebook.deselectAll();
    notebook.node.focus();
    void notebook.scrollToCell(notebook.activeCell!);
  }

  private _explaining(): HTMLElement {
    const trans = this._trans;
    return make(
      'div',
      'llm-CellBar',
      { role: 'group', 'aria-label': trans.__('About this error') },
      button(
        trans.__('Explain this error'),
        trans.__('Explain this error: asks the model in a cell below'),
        () => void explain(this._panel, this._cell, trans)
      ),
      button(
        trans.__('Fix this cell'),
        trans.__('Fix this cell: asks the model for a change, which you accept or reject'),
        () => void fix(this._panel, this._cell, trans)
      )
    );
  }

  private _loading(): HTMLElement {
    const trans = this._trans;
    const load = button(
      trans.__('Load llm_magics and run again'),
      trans.__('Load llm_magics and run again: runs %1 above, and then this cell', LOAD),
      () => {
        load.disabled = true;
        void runAbove(this._panel, this._cell, LOAD);
      }
    );
    load.classList.add('llm-mod-primary');
    return make('div', 'llm-CellBar', { role: 'group', 'aria-label': trans.__('About this error') }, load);
  }

  private _show(key: string, draw: () => HTMLElement): void {
    if (key !== this._shown) {
      this._shown = key;
      this.node.replaceChildren(...(key ? [draw()] : []));
    }
  }

  /** Hear when the cell that is to be changed changes. */
  private _follow(target: ICodeCellModel | null): void {
    if (target !== this._target) {
      this._target?.contentChanged.disconnect(this.refresh, this);
      this._target = target;
      target?.contentChanged.connect(this.refresh, this);
    }
  }

  private _find(id: string): ICodeCellModel | null {
    const cells = Array.from(this._panel.context.model?.cells ?? []);
    return (cells.find(cell => cell.id === id && cell.type === 'code') as ICodeCellModel | undefined) ?? null;
  }
}

function offerOf(model: ICodeCellModel): ReturnType<typeof offerFor> {
  return offerFor(model.sharedModel.getSource(), model.outputs.toJSON() as Record<string, any>[]);
}

function readFix(model: ICodeCellModel): IFix | null {
  const fix = (model.getMetadata(KEY) as Record<string, any> | undefined)?.fix;
  const verdict = fix?.verdict === 'accepted' || fix?.verdict === 'rejected' ? fix.verdict : '';
  return typeof fix?.cell === 'string' ? { cell: fix.cell, turn: String(fix.turn ?? ''), verdict } : null;
}

/** The turn that the cell's output holds, once it is over. */
function finishedTurn(model: ICodeCellModel): ITranscript | null {
  for (const { data } of model.outputs.toJSON() as Record<string, any>[]) {
    const turn = data?.[MIME_TYPE] ? readTranscript(data[MIME_TYPE]) : null;
    if (turn && turn.state !== 'running') {
      return turn;
    }
  }
  return null;
}
