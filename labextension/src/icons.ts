/** Our icons, in the colours of the theme. */

import { LabIcon } from '@jupyterlab/ui-components';

/** A speech bubble with an "f" in it: a function that a model calls. */
export const toolIcon = new LabIcon({
  name: 'llm-magics:tool',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
    <path class="jp-icon3 jp-icon-selectable" fill="#616161" fill-rule="evenodd"
      d="M4 2h16a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H10l-5 4v-4H4a2 2 0 0 1-2-2V4a2 2 0 0 1 2-2z
         M15.5 4.5h-1.3c-2 0-3.2 1.2-3.2 3.1V9H9v1.8h2v4.7h2.1v-4.7h2.2V9h-2.2V7.7c0-.9.4-1.4 1.3-1.4h1.1z"/>
  </svg>`
});
