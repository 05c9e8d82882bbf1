/**
 * Cells as tools: a form that makes a cell a tool (kept in the cell's metadata, where the kernel reads it), a badge on cells that
 * are tools, and a way to run one as the model would.
 */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { Cell, ICellModel } from '@jupyterlab/cells';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { make } from './dom';
import { type ICellTool, KEY, nameError, storedTool, toolName } from './toolmetadata';

/** Ask for the tool that a cell is to be, and write it into its metadata; an empty name makes it an ordinary cell again. */
export async function editTool(model: ICellModel, trans: TranslationBundle): Promise<void> {
  const form = new ToolForm(storedTool(model.metadata as any), trans);
  const result = await showDialog({
    title: trans.__('This cell as a tool'),
    body: form,
    focusNodeSelector: 'input',
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Save') })]
  });
  if (!result.button.accept || !result.value) {
    return;
  }
  const wrong = nameError(result.value.name, trans);
  if (wrong) {
    await showDialog({ title: trans.__('Not a tool'), body: wrong, buttons: [Dialog.okButton()] });
    return;
  }
  const kept: Record<string, any> = { ...model.getMetadata(KEY) };
  delete kept.tool;
  if (result.value.name) {
    kept.tool = { ...result.value };
  }
  if (Object.keys(kept).length) {
    model.setMetadata(KEY, kept);
  } else {
    model.deleteMetadata(KEY);
  }
}

/** Ask for arguments, and run the tool as the model would, in a new cell below. */
export async function runTool(panel: NotebookPanel, cell: Cell, trans: TranslationBundle): Promise<void> {
  const name = toolName(cell.model.sharedModel.getSource(), cell.model.metadata as any);
  const label = trans.__('Arguments as JSON');
  const input = make('textarea', 'jp-mod-styled', { 'aria-label': label, rows: '4' }, '{}');
  const body = new ArgumentsForm(make('label', 'llm-Form', {}, label, input), input);
  const buttons = [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Run') })];
  const result = await showDialog({
    title: trans.__('Run %1 as a tool', name),
    body,
    focusNodeSelector: 'textarea',
    buttons
  });
  if (!result.button.accept) {
    return;
  }
  const line = `%tools test ${name} ${(result.value ?? '{}').replace(/\s*\n\s*/g, ' ')}`;
  panel.content.activeCellIndex = panel.content.widgets.indexOf(cell);
  NotebookActions.insertBelow(panel.content);
  panel.content.activeCell!.model.sharedModel.setSource(line);
  await NotebookActions.run(panel.content, panel.sessionContext);
}

/** Keep a badge on every cell of a notebook that is a tool. */
export function followTools(panel: NotebookPanel, trans: TranslationBundle): void {
  const followed = new WeakSet<Cell>();
  const follow = () => {
    for (const cell of panel.content.widgets) {
      if (cell.model.type === 'code' && !followed.has(cell)) {
        followed.add(cell);
        const update = () => badge(cell, trans);
        cell.model.contentChanged.connect(update);
        cell.model.metadataChanged.connect(update);
        cell.disposed.connect(() => {
          cell.model?.contentChanged.disconnect(update);
          cell.model?.metadataChanged.disconnect(update);
        });
        update();
      }
    }
  };
  void panel.context.ready.then(() => {
    panel.context.model.cells.changed.connect(() => requestAnimationFrame(follow));
    follow();
  });
}

function badge(cell: Cell, trans: TranslationBundle): void {
  if (cell.isDisposed) {
    return;
  }
  const name = toolName(cell.model.sharedModel.getSource(), cell.model.metadata as any);
  if (name) {
    cell.node.dataset.llmTool = trans.__('tool %1', name);
  } else {
    delete cell.node.dataset.llmTool;
  }
}

class ToolForm extends Widget implements Dialog.IBodyWidget<ICellTool> {
  private _inputs: Record<keyof ICellTool, HTMLInputElement>;

  constructor(tool: ICellTool | null, trans: TranslationBundle) {
    super();
    const input = (value: string, placeholder: string) =>
      make('input', 'jp-mod-styled', { value, placeholder, type: 'text' });
    this._inputs = {
      name: input(tool?.name ?? '', 'plot_rain'),
      description: input(tool?.description ?? '', trans.__('Plot the rain of a city.')),
      parameters: input(tool?.parameters ?? '', 'city: str, days: int = 3')
    };
    const { name, description, parameters } = this._inputs;
    this.node.append(
      make('label', 'llm-Form', {}, trans.__('Name (empty: no tool)'), name),
      make('label', 'llm-Form', {}, trans.__('What it does, for the model'), description),
      make('label', 'llm-Form', {}, trans.__('Parameters, as in a Python signature'), parameters)
    );
  }

  getValue(): ICellTool {
    const { name, description, parameters } = this._inputs;
    return {
      name: name.value.trim(),
      description: description.value.trim(),
      parameters: parameters.value.trim()
    };
  }
}

class ArgumentsForm extends Widget implements Dialog.IBodyWidget<string> {
  constructor(
    node: HTMLElement,
    private readonly _input: HTMLTextAreaElement
  ) {
    super({ node });
  }

  getValue(): string {
    return this._input.value.trim() || '{}';
  }
}
