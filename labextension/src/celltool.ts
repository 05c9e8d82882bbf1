/**
 * Cells as tools: a form that makes a cell a tool (kept in the cell's metadata, where the kernel reads it), a badge on cells that
 * are tools, and a way to run one as the model would.
 */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { Cell, ICellModel } from '@jupyterlab/cells';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Parser } from '@lezer/common';
import { Widget } from '@lumino/widgets';
import { make } from './dom';
import { ToolForm } from './toolform';
import { headerTool, KEY, toolName, toolOf, withHeader } from './toolmetadata';

/**
 * Ask for the tool that a cell is to be; an empty name makes it an ordinary cell again.
 *
 * A cell that is a tool by its own first line keeps saying so there; for any other, the cell's metadata say it. `python` reads the
 * parameters.
 */
export async function editTool(
  model: ICellModel,
  python: Parser | null,
  trans: TranslationBundle
): Promise<void> {
  const source = model.sharedModel.getSource();
  const result = await showDialog({
    title: trans.__('This cell as a tool'),
    body: new ToolForm(toolOf(source, model.metadata as any), python, trans),
    focusNodeSelector: 'input',
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Save') })]
  });
  if (!result.button.accept || !result.value) {
    return;
  }
  if (headerTool(source)) {
    model.sharedModel.setSource(withHeader(source, result.value));
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
