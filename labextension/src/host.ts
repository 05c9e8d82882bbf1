import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Decision, IQuestion } from './live';
import type { ILook } from './preferences';

/** What a page can do for a drawn transcript. The views know JupyterLab only through this. */
export interface IHost {
  /** How the user wants conversations to look. */
  readonly look: ILook;
  /** Our own words in the language of the page. What a kernel, a model or a tool says is shown as it came. */
  readonly trans: TranslationBundle;
  /** Colour code inside an element that is empty. */
  highlight(code: string, language: string, element: HTMLElement): Promise<void>;
  /** Typeset the TeX in an element, delimiters included. */
  typeset(element: HTMLElement): void;
  /** Draw the best other form of an output, as JupyterLab would without us; null where there is none. */
  drawStatic(model: IRenderMime.IMimeModel): Promise<HTMLElement | null>;
  /** Put text on the clipboard. */
  copy(text: string): void;
  /** Add a code cell below the cell that holds `from`; false where `from` is in no notebook. */
  insertBelow(code: string, from: HTMLElement): boolean;
  /** Run a line in a cell above the one that holds `from`, and then that one again; false where `from` is in no notebook. */
  runAbove(line: string, from: HTMLElement): boolean;
  /** Interrupt the kernel that writes this turn. */
  stop(turn: string): void;
  /** Interrupt the kernel of the notebook that `from` is in. */
  interrupt(from: HTMLElement): void;
  /** Whether the kernel of the notebook that `from` is in runs something. */
  isBusy(from: HTMLElement): boolean;
  /** Tell the kernel what the person decided on this question. */
  decide(turn: string, question: IQuestion, decision: Decision): void;
}
