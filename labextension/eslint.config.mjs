import js from '@eslint/js';
import typescript from 'typescript-eslint';

export default typescript.config(
  { ignores: ['lib', 'node_modules', 'stamp.mjs'] },
  js.configs.recommended,
  ...typescript.configs.recommended,
  {
    rules: {
      // JSON from a kernel is `any` until it has been read; `readTranscript` is where it gets its types.
      '@typescript-eslint/no-explicit-any': 'off',
      // The project's own convention, as in JupyterLab: interfaces begin with I.
      '@typescript-eslint/naming-convention': [
        'error',
        { selector: 'interface', format: ['PascalCase'], prefix: ['I'] }
      ],
      curly: 'error',
      eqeqeq: 'error'
    }
  }
);
