/** The plugins: transcripts and the link to the kernel; `%%chat` cells in the editor; cells as tools; the model card. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import {
  EditorExtensionRegistry,
  IEditorExtensionRegistry,
  IEditorLanguageRegistry
} from '@jupyterlab/codemirror';
import { PageConfig } from '@jupyterlab/coreutils';
import { INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';
import { ACTION_MIME_TYPE, ActionRenderer } from './action';
import { NotebookBridge } from './bridge';
import { canExplain, explain, fix, followErrors } from './cellbar';
import { editTool, followTools, runTool } from './celltool';
import { followChatCells, magicLines, registerChatLanguage } from './chatlanguage';
import { COLUMNS_TYPE, ColumnsRenderer } from './columns';
import { watchReader } from './following';
import { toolIcon } from './icons';
import { LiveTurns } from './live';
import { Gauges, ModelCard } from './modelcard';
import { PageHost } from './pagehost';
import { Preferences } from './preferences';
import { TranscriptRenderer } from './renderer';
import { toolName } from './toolmetadata';
import { MIME_TYPE } from './transcript';

const IPreferences = new Token<Preferences>(
  'llm-magics:IPreferences',
  'What the user set in the settings editor.'
);
const IGauges = new Token<Gauges>('llm-magics:IGauges', 'What is loaded in the kernel of each notebook.');

const settings: JupyterFrontEndPlugin<Preferences> = {
  id: 'llm-magics:settings',
  description: 'How conversations look, and rules for them, from the settings editor.',
  autoStart: true,
  requires: [ISettingRegistry],
  provides: IPreferences,
  activate: (_app: JupyterFrontEnd, registry: ISettingRegistry) => {
    const preferences = new Preferences();
    void registry.load('llm-magics:settings').then(loaded => {
      const take = () => preferences.set(loaded.composite);
      loaded.changed.connect(take);
      take();
    });
    return preferences;
  }
};

const modelGauges: JupyterFrontEndPlugin<Gauges> = {
  id: 'llm-magics:gauges',
  description: 'Keeps what each kernel says of its loaded models.',
  autoStart: true,
  provides: IGauges,
  activate: () => new Gauges()
};

const transcripts: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:transcripts',
  description: 'Draws conversations, and streams them while they are written.',
  autoStart: true,
  requires: [IRenderMimeRegistry, INotebookTracker, IEditorLanguageRegistry, IPreferences, IGauges],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    rendermime: IRenderMimeRegistry,
    notebooks: INotebookTracker,
    languages: IEditorLanguageRegistry,
    preferences: Preferences,
    gauges: Gauges,
    translator: ITranslator | null
  ) => {
    ignoreStatusOfOurMessages();
    watchReader(document, NotebookActions.executionScheduled);
    const live = new LiveTurns();
    const bridges = new Map<NotebookPanel['context'], NotebookBridge>();
    const host = new PageHost(rendermime, notebooks, languages, bridges, preferences, ours(translator));
    notebooks.widgetAdded.connect((_, { context }) => {
      if (!bridges.has(context)) {
        const before = new Set(Array.from(app.serviceManager.kernels.running(), kernel => kernel.id));
        const bridge = new NotebookBridge(context, live, before, preferences, (models, gpus) =>
          gauges.set(context, models, gpus)
        );
        bridges.set(context, bridge);
        context.disposed.connect(() => bridges.delete(context));
      }
    });
    rendermime.addFactory(
      {
        safe: true,
        mimeTypes: [MIME_TYPE],
        createRenderer: () => new TranscriptRenderer(host, live, preferences)
      },
      0
    );
    rendermime.addFactory(
      { safe: true, mimeTypes: [ACTION_MIME_TYPE], createRenderer: () => new ActionRenderer(host) },
      0
    );
    rendermime.addFactory(
      { safe: true, mimeTypes: [COLUMNS_TYPE], createRenderer: () => new ColumnsRenderer(host) },
      0
    );
  }
};

const chatCells: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:chat-cells',
  description: 'Shows the body of %%chat cells as markdown, and the lines of our magics as such.',
  autoStart: true,
  requires: [INotebookTracker, IEditorLanguageRegistry, IEditorExtensionRegistry],
  activate: (
    _app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    languages: IEditorLanguageRegistry,
    extensions: IEditorExtensionRegistry
  ) => {
    registerChatLanguage(languages);
    extensions.addExtension({
      name: 'llm-magics:magic-lines',
      factory: () => EditorExtensionRegistry.createImmutableExtension(magicLines)
    });
    notebooks.widgetAdded.connect((_, panel) => followChatCells(panel, languages));
  }
};

const cells: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:cells',
  description: 'Makes cells tools.',
  autoStart: true,
  requires: [INotebookTracker, IEditorLanguageRegistry],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    languages: IEditorLanguageRegistry,
    translator: ITranslator | null
  ) => {
    const trans = ours(translator);
    const isCode = () => notebooks.activeCell?.model.type === 'code';
    notebooks.widgetAdded.connect((_, panel) => followTools(panel, trans));
    app.commands.addCommand('llm-magics:edit-tool', {
      label: trans.__('Make This Cell a Tool…'),
      caption: trans.__('Let a model call this cell as a tool'),
      icon: toolIcon,
      isEnabled: isCode,
      isVisible: isCode,
      execute: async () => {
        const cell = notebooks.activeCell;
        const python = await languages.getLanguage('text/x-python');
        return cell && editTool(cell.model, python?.support?.language.parser ?? null, trans);
      }
    });
    app.commands.addCommand('llm-magics:run-tool', {
      label: trans.__('Run This Tool with…'),
      caption: trans.__('Run this cell as a model would, with arguments'),
      isEnabled: () => {
        const model = notebooks.activeCell?.model;
        return !!model && toolName(model.sharedModel.getSource(), model.metadata as any) !== '';
      },
      execute: () =>
        notebooks.currentWidget &&
        notebooks.activeCell &&
        runTool(notebooks.currentWidget, notebooks.activeCell, trans)
    });
  }
};

const errors: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:errors',
  description: 'Has a model explain errors and fix cells.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ITranslator, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    translator: ITranslator | null,
    palette: ICommandPalette | null
  ) => {
    const trans = ours(translator);
    notebooks.widgetAdded.connect((_, panel) => followErrors(panel, trans));
    const isEnabled = () => canExplain(notebooks.activeCell);
    const acting = (act: typeof explain) => () =>
      notebooks.currentWidget &&
      notebooks.activeCell &&
      act(notebooks.currentWidget, notebooks.activeCell, trans);
    app.commands.addCommand('llm-magics:explain-error', {
      label: trans.__('Explain This Error'),
      caption: trans.__('Ask the model in a cell below'),
      isEnabled,
      isVisible: isEnabled,
      execute: acting(explain)
    });
    app.commands.addCommand('llm-magics:fix-cell', {
      label: trans.__('Fix This Cell'),
      caption: trans.__('Ask the model for a change, which you accept or reject'),
      isEnabled,
      isVisible: isEnabled,
      execute: acting(fix)
    });
    const category = trans.__('Language Models');
    for (const command of ['llm-magics:explain-error', 'llm-magics:fix-cell']) {
      palette?.addItem({ command, category });
    }
  }
};

const modelCard: JupyterFrontEndPlugin<void> = {
  id: 'llm-magics:model-card',
  description: 'Shows the loaded models in the status bar.',
  autoStart: true,
  requires: [INotebookTracker, IPreferences, IGauges],
  optional: [IStatusBar, ITranslator],
  activate: (
    _app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    preferences: Preferences,
    gauges: Gauges,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ) => {
    const loaded = () => gauges.get(notebooks.currentWidget?.context ?? null);
    const card = new ModelCard(loaded, ours(translator));
    const refresh = () => card.refresh(preferences.look.modelCard);
    gauges.changed.connect(refresh);
    preferences.changed.connect(refresh);
    notebooks.currentChanged.connect(refresh);
    statusBar?.registerStatusItem('llm-magics:model-card', { item: card, align: 'middle', rank: 1 });
  }
};

/** Our words in the language of the page; in English where nothing translates them. */
function ours(translator: ITranslator | null): TranslationBundle {
  return (translator ?? nullTranslator).load('llm_magics');
}

/** A control message makes the kernel say "busy, idle" although its cell runs on; JupyterLab keeps a list of such types. */
function ignoreStatusOfOurMessages(): void {
  const option = 'untracked_message_types';
  const types: string[] = JSON.parse(PageConfig.getOption(option) || '[]');
  PageConfig.setOption(option, JSON.stringify([...types, 'llm_magics']));
}

export default [settings, modelGauges, transcripts, chatCells, cells, errors, modelCard];
