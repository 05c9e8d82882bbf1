/** The plugins: the renderer of transcripts, and the link of every notebook to its kernel. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard } from '@jupyterlab/apputils';
import { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { PageConfig } from '@jupyterlab/coreutils';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { NotebookBridge } from './bridge';
import type { IHost } from './host';
import { LiveTurns } from './live';
import { TranscriptRenderer } from './renderer';
import { MIME_TYPE } from './transcript';

const transcripts: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:transcripts',
  description: 'Draws conversations, and streams them while they are written.',
  autoStart: true,
  requires: [IRenderMimeRegistry, INotebookTracker, IEditorLanguageRegistry],
  activate: (
    app: JupyterFrontEnd,
    rendermime: IRenderMimeRegistry,
    notebooks: INotebookTracker,
    languages: IEditorLanguageRegistry
  ) => {
    ignoreStatusOfOurMessages();
    const live = new LiveTurns();
    const bridges = new Map<NotebookPanel['context'], NotebookBridge>();
    const host = new PageHost(rendermime, notebooks, languages, bridges);
    notebooks.widgetAdded.connect((_, panel) => {
      const { context } = panel;
      if (!bridges.has(context)) {
        const before = new Set(Array.from(app.serviceManager.kernels.running(), kernel => kernel.id));
        bridges.set(context, new NotebookBridge(context, live, before, () => undefined));
        context.disposed.connect(() => bridges.delete(context));
      }
    });
    rendermime.addFactory(
      {
        safe: true,
        mimeTypes: [MIME_TYPE],
        createRenderer: () => new TranscriptRenderer(host, live)
      },
      0
    );
  }
};

/** A control message makes the kernel say "busy, idle" although its cell runs on; JupyterLab keeps a list of such types. */
function ignoreStatusOfOurMessages(): void {
  const option = 'untracked_message_types';
  const types: string[] = JSON.parse(PageConfig.getOption(option) || '[]');
  PageConfig.setOption(option, JSON.stringify([...types, 'llm_magics']));
}

class PageHost implements IHost {
  constructor(
    private readonly _rendermime: IRenderMimeRegistry,
    private readonly _notebooks: INotebookTracker,
    private readonly _languages: IEditorLanguageRegistry,
    private readonly _bridges: Map<NotebookPanel['context'], NotebookBridge>
  ) {}

  async highlight(code: string, language: string, element: HTMLElement): Promise<void> {
    await this._languages.highlight(code, this._languages.findBest(language), element);
  }

  typeset(element: HTMLElement): void {
    void this._rendermime.latexTypesetter?.typeset(element);
  }

  copy(text: string): void {
    Clipboard.copyToSystem(text);
  }

  insertBelow(code: string, from: HTMLElement): boolean {
    const panel = this._notebooks.find(candidate => candidate.node.contains(from));
    const at = panel ? panel.content.widgets.findIndex(cell => cell.node.contains(from)) : -1;
    if (!panel || at < 0) {
      return false;
    }
    panel.content.model!.sharedModel.insertCell(at + 1, { cell_type: 'code', source: code.trimEnd() });
    panel.content.activeCellIndex = at + 1;
    return true;
  }

  stop(turn: string): void {
    this._bridge(turn)?.interrupt();
  }

  decide(turn: string, digest: string, decision: 'approve' | 'deny' | 'always'): void {
    this._bridge(turn)?.send({ kind: 'decision', digest, decision });
  }

  private _bridge(turn: string): NotebookBridge | undefined {
    return [...this._bridges.values()].find(bridge => bridge.owns(turn));
  }
}

export default transcripts;
