import type { BuildOptions, Plugin } from 'esbuild';

/** ssh2 runs without its native parts; scripts/install.mjs says why. */
const withoutNativeSsh: Plugin = {
  name: 'ssh2 without its native parts',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /sshcrypto\.node$/ }, () => ({ path: 'sshcrypto', namespace: 'unused' }));
    onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: "throw new Error('not used')" }));
    // Optional for ssh2, which uses it to choose ciphers.
    onResolve({ filter: /^cpu-features$/ }, () => ({ path: 'cpu-features', external: true }));
  },
};

/** How programs on top of the tunnel (the agent, the CLI) are bundled to run on a Node alone. */
export const programBundle = {
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  // esbuild prefers CommonJS for Node, whose named exports are invisible to dynamic imports.
  mainFields: ['module', 'main'],
  minify: true,
  keepNames: true,
  // CommonJS packages call require for Node's modules.
  banner: {
    js: "import{createRequire as cdeRequire}from'node:module';const require=cdeRequire(import.meta.url),__dirname=import.meta.dirname,__filename=import.meta.filename;",
  },
  plugins: [withoutNativeSsh],
  logLevel: 'warning',
} satisfies BuildOptions;
