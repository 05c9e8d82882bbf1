/** JupyterLab as the views see it. */

import { Clipboard } from '@jupyterlab/apputils';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { NotebookBridge } from './bridge';
import { runAbove } from './cellactions';
import { COLUMNS_TYPE } from './columns';
import type { IHost } from './host';
import type { Decision, IQuestion } from './live';
import type { ILook, Preferences } from './preferences';
import { MIME_TYPE } from './transcript';

/** What we draw ourselves. */
const OURS = [MIME_TYPE, COLUMNS_TYPE];

export class PageHost implements IHost {
  constructor(
    private readonly _rendermime: IRenderMimeRegistry,
    private readonly _notebooks: INotebookTracker,
    private readonly _languages: IEditorLanguageRegistry,
    private readonly _bridges: Map<NotebookPanel['context'], NotebookBridge>,
    private readonly _preferences: Preferences,
    readonly trans: TranslationBundle
  ) {}

  get look(): ILook {
    return this._preferences.look;
  }

  async highlight(code: string, language: string, element: HTMLElement): Promise<void> {
    await this._languages.highlight(code, this._languages.findBest(language), element);
  }

  typeset(element: HTMLElement): void {
    void this._rendermime.latexTypesetter?.typeset(element);
  }

  async drawStatic(model: IRenderMime.IMimeModel): Promise<HTMLElement | null> {
    const others = Object.fromEntries(Object.entries(model.data).filter(([type]) => !OURS.includes(type)));
    const type = this._rendermime.preferredMimeType(others, model.trusted ? 'any' : 'ensure');
    if (!type) {
      return null;
    }
    const renderer = this._rendermime.createRenderer(type);
    await renderer.renderModel(model);
    return renderer.node;
  }

  copy(text: string): void {
    Clipboard.copyToSystem(text);
  }

  insertBelow(code: string, from: HTMLElement): boolean {
    const panel = this._panel(from);
    const at = panel ? panel.content.widgets.findIndex(cell => cell.node.contains(from)) : -1;
    if (!panel || at < 0) {
      return false;
    }
    panel.content.model!.sharedModel.insertCell(at + 1, { cell_type: 'code', source: code.trimEnd() });
    panel.content.activeCellIndex = at + 1;
    return true;
  }

  runAbove(line: string, from: HTMLElement): boolean {
    const panel = this._panel(from);
    const cell = panel?.content.widgets.find(candidate => candidate.node.contains(from));
    if (panel && cell) {
      void runAbove(panel, cell, line);
    }
    return cell !== undefined;
  }

  stop(turn: string): void {
    this._bridge(turn)?.interrupt();
  }

  decide(turn: string, { id, digest }: IQuestion, decision: Decision): void {
    this._bridge(turn)?.send({ kind: 'decision', id, digest, decision });
  }

  interrupt(from: HTMLElement): void {
    const panel = this._panel(from);
    if (panel) {
      this._bridges.get(panel.context)?.interrupt();
    }
  }

  isBusy(from: HTMLElement): boolean {
    return this._panel(from)?.sessionContext.session?.kernel?.status === 'busy';
  }

  private _panel(node: HTMLElement): NotebookPanel | undefined {
    return this._notebooks.find(candidate => candidate.node.contains(node));
  }

  private _bridge(turn: string): NotebookBridge | undefined {
    return [...this._bridges.values()].find(bridge => bridge.owns(turn));
  }
}
