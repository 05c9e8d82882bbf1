/** The form that makes a cell a tool. What is wrong in it is said beside its field, and nothing that was typed is lost. */

import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Parser } from '@lezer/common';
import { Widget } from '@lumino/widgets';
import { make } from './dom';
import { type Approve, type ICellTool, nameError, parametersError } from './toolmetadata';

const PLACEHOLDER = { name: 'plot_rain', parameters: 'city: str, days: int = 3' };

let fields = 0;

export class ToolForm extends Widget implements Dialog.IBodyWidget<ICellTool> {
  private _name: HTMLInputElement;
  private _description: HTMLInputElement;
  private _parameters: HTMLInputElement;
  private _approve: HTMLSelectElement;

  /** `python` reads the parameters; without it the kernel says later what is wrong with them. */
  constructor(tool: ICellTool | null, python: Parser | null, trans: TranslationBundle) {
    super();
    const input = (value: string, placeholder: string) =>
      make('input', 'jp-mod-styled', { value, placeholder, type: 'text' });
    this._name = input(tool?.name ?? '', PLACEHOLDER.name);
    this._description = input(tool?.description ?? '', trans.__('Plot the rain of a city.'));
    this._parameters = input(tool?.parameters ?? '', PLACEHOLDER.parameters);
    const choice = (value: Approve, label: string) => make('option', '', { value }, label);
    this._approve = make(
      'select',
      'jp-mod-styled',
      {},
      choice('ask', trans.__('Ask me each time')),
      choice('auto', trans.__('Run without asking')),
      choice('deny', trans.__('Never run'))
    );
    this._approve.value = tool?.approve ?? 'ask';
    this.node.append(
      this._checked(trans.__('Name (empty: no tool)'), this._name, value => nameError(value, trans)),
      make('label', 'llm-Form', {}, trans.__('What it does, for the model'), this._description),
      this._checked(trans.__('Parameters, as in a Python signature'), this._parameters, value =>
        python ? parametersError(value, python, trans) : ''
      ),
      make('label', 'llm-Form', {}, trans.__('When a model calls it'), this._approve)
    );
  }

  getValue(): ICellTool {
    return {
      name: this._name.value.trim(),
      description: this._description.value.trim(),
      parameters: this._parameters.value.trim(),
      approve: this._approve.value as Approve
    };
  }

  /** A field with what is wrong with it below; while something is, the dialog cannot be accepted. */
  private _checked(
    label: string,
    input: HTMLInputElement,
    wrongWith: (value: string) => string
  ): HTMLElement {
    const error = make('div', 'llm-Form-error', { id: `llm-Form-error-${fields++}`, role: 'alert' });
    input.setAttribute('aria-describedby', error.id);
    const check = () => {
      const wrong = wrongWith(input.value.trim());
      error.textContent = wrong;
      input.setAttribute('aria-invalid', String(wrong !== ''));
      input.setCustomValidity(wrong);
    };
    input.addEventListener('input', () => {
      check();
      this.node.dispatchEvent(new Event('input', { bubbles: true })); // the dialog has looked before this field was checked
    });
    check();
    return make('div', 'llm-Form', {}, make('label', 'llm-Form', {}, label, input), error);
  }
}
