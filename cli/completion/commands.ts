import { type Command, command } from '../command/command.ts';

const group = 'Other:';

export const completionCommands: readonly Command[] = [
  command({
    name: 'completion',
    group,
    summary: 'Print a completion script for your shell',
    arguments: { shell: { help: 'bash, zsh or fish', completes: ['bash', 'zsh', 'fish'] } },
    examples: [
      ['source <(cde completion bash)', 'in ~/.bashrc'],
      ['source <(cde completion zsh)', 'in ~/.zshrc, after compinit'],
      ['cde completion fish > ~/.config/fish/completions/cde.fish', 'once'],
    ],
    load: () => import('./completion.ts').then((m) => m.completion),
  }),
  command({
    name: 'completion-words',
    group,
    hidden: true,
    summary: 'Print completion candidates, one per line',
    arguments: {
      kind: { help: 'workspaces, connectable, templates, users, clusters, nodes or paths' },
      word: { help: 'The beginning of a path', optional: true },
    },
    examples: [],
    load: () => import('./words.ts').then((m) => m.words),
  }),
  command({
    name: 'version',
    group,
    summary: 'Print the versions of cde and Node.js',
    examples: [['cde version', 'for a bug report (`cde --version` prints only the number)']],
    load: () => import('./version.ts').then((m) => m.version),
  }),
];
