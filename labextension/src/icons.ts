/** Our icons, in the colours of the theme. */

import { LabIcon } from '@jupyterlab/ui-components';

/** A spanner. */
export const toolIcon = new LabIcon({
  name: 'llm-magics:tool',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
    <path class="jp-icon3 jp-icon-selectable" fill="#616161" transform="rotate(135 12 12)"
      d="M1.4 10A5 5 0 0 1 10.6 10H21a2 2 0 0 1 0 4H10.6A5 5 0 0 1 1.4 14H6a2 2 0 0 0 0-4z"/>
  </svg>`
});
