/** `%%chat` and `%%compare` cells in the editor: their body is markdown, not Python; their first line and `{{expressions}}` stand out. */

import { LanguageSupport } from '@codemirror/language';
import type { Extension } from '@codemirror/state';
import {
  Decoration,
  type DecorationSet,
  EditorView,
  MatchDecorator,
  ViewPlugin,
  type ViewUpdate
} from '@codemirror/view';
import type { ICellModel } from '@jupyterlab/cells';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import type { NotebookPanel } from '@jupyterlab/notebook';

export const CHAT_MIME_TYPE = 'text/x-llm-magics-chat';
const MARKDOWN = 'ipythongfm'; // JupyterLab's own name for markdown with maths
const MAGIC = Decoration.mark({ class: 'llm-ChatMagic' });
const LINE = Decoration.mark({ class: 'llm-MagicLine' });
const EXPRESSION = Decoration.mark({ class: 'llm-ChatExpression' });

/** Lines of our other magics, which are no arithmetic, e.g. `%load_model qwen2.5-coder-0.5b`. */
const MAGIC_LINES = /^%(?:load_model|unload_model|models|thread|llm|tools)\b.*|^%%tool\b.*/g;

/** Make the language known to the page's editors. */
export function registerChatLanguage(languages: IEditorLanguageRegistry): void {
  languages.addLanguage({
    name: 'llm-magics-chat',
    mime: CHAT_MIME_TYPE,
    load: async () => {
      const markdown = await languages.getLanguage(MARKDOWN);
      if (!markdown?.support) {
        throw new Error('This JupyterLab has no markdown language for its editors.');
      }
      return new LanguageSupport(markdown.support.language, [
        markdown.support.support,
        marks,
        EditorView.lineWrapping
      ]);
    }
  });
}

/** Keep the language of a notebook's cells in step with their first line. */
export function followChatCells(panel: NotebookPanel, languages: IEditorLanguageRegistry): void {
  const followed = new WeakSet<ICellModel>();
  const follow = () => {
    for (const cell of panel.context.model.cells) {
      if (cell.type === 'code' && !followed.has(cell)) {
        followed.add(cell);
        const update = () => void setLanguage(cell, panel.content.codeMimetype, languages);
        cell.contentChanged.connect(update);
        cell.mimeTypeChanged.connect(update);
        update();
      }
    }
  };
  void panel.context.ready.then(() => {
    panel.context.model.cells.changed.connect(follow);
    follow();
  });
}

/** Whether a cell's text is a conversation's and not the kernel's language, e.g. `%%chat -m qwen`. */
export function isChat(source: string): boolean {
  return /^\s*%%(chat|compare)\b/.test(source);
}

async function setLanguage(
  model: ICellModel,
  codeMimeType: string,
  languages: IEditorLanguageRegistry
): Promise<void> {
  // An editor applies languages in the order in which they finish loading: let the notebook's own be there first.
  await languages.getLanguage(codeMimeType);
  if (model.isDisposed) {
    return;
  }
  const chat = isChat(model.sharedModel.getSource());
  if (chat && model.mimeType !== CHAT_MIME_TYPE) {
    model.mimeType = CHAT_MIME_TYPE;
  } else if (!chat && model.mimeType === CHAT_MIME_TYPE) {
    model.mimeType = codeMimeType;
  }
}

const marks = marking({
  regexp: /^%%(?:chat|compare)\b.*|(?<!\\)\{\{[^{}\n]*\}\}/g, // but not \{{an escape}}
  decoration: match => (match[0].startsWith('%%') ? MAGIC : EXPRESSION)
});

/** For the editors of all cells: our magics' lines in one colour. */
export const magicLines = marking({ regexp: MAGIC_LINES, decoration: LINE });

function marking(config: ConstructorParameters<typeof MatchDecorator>[0]): Extension {
  const decorator = new MatchDecorator(config);
  return ViewPlugin.fromClass(
    class {
      decorations: DecorationSet;
      constructor(view: EditorView) {
        this.decorations = decorator.createDeco(view);
      }
      update(update: ViewUpdate) {
        this.decorations = decorator.updateDeco(update, this.decorations);
      }
    },
    { decorations: plugin => plugin.decorations }
  );
}
