/** What the buttons do to a notebook: ask below a cell, run a line above one. */

import type { Cell } from '@jupyterlab/cells';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import { isChat } from './chatlanguage';

/**
 * Run a question in a cell below `cell`: in a new one, or in the one that asks the same there already. A new one stands
 * behind those of the `others` that were asked about the cell before.
 */
export async function askBelow(
  panel: NotebookPanel,
  cell: Cell,
  source: string,
  others: readonly string[],
  metadata: Record<string, any> = {}
): Promise<void> {
  const notebook = panel.content;
  const at = notebook.widgets.indexOf(cell);
  if (at < 0) {
    return;
  }
  let below = at + 1;
  const sourceAt = (index: number) => notebook.widgets[index]?.model.sharedModel.getSource() ?? '';
  while (isChat(sourceAt(below)) && sourceAt(below) !== source) {
    below++;
  }
  if (sourceAt(below) !== source) {
    below = at + 1;
    while (others.includes(sourceAt(below))) {
      below++;
    }
    notebook.model!.sharedModel.insertCell(below, { cell_type: 'code', source, metadata });
  }
  await run(panel, below);
}

/** Run a line in a cell above `cell`, a new one unless a cell above holds just that line, and then `cell` again. */
export async function runAbove(panel: NotebookPanel, cell: Cell, line: string): Promise<void> {
  const notebook = panel.content;
  const at = notebook.widgets.indexOf(cell);
  if (at < 0) {
    return;
  }
  const sources = notebook.widgets.slice(0, at).map(({ model }) => model.sharedModel.getSource().trim());
  let above = sources.lastIndexOf(line);
  if (above < 0) {
    above = at;
    notebook.model!.sharedModel.insertCell(at, { cell_type: 'code', source: line });
  }
  if (await run(panel, above)) {
    await run(panel, notebook.widgets.indexOf(cell));
  }
}

async function run(panel: NotebookPanel, at: number): Promise<boolean> {
  const notebook = panel.content;
  notebook.activeCellIndex = at;
  notebook.deselectAll();
  return NotebookActions.runCells(notebook, [notebook.widgets[at]], panel.sessionContext);
}
