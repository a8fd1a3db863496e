import { type Command, command } from '../command/command.ts';
import { pathOption as path } from './path-option.ts';
import { startOptions } from './start-option.ts';

const group = 'Connect:';

export const sshCommands: readonly Command[] = [
  command({
    name: 'ssh',
    group,
    summary: 'Open a shell in a workspace, or run a command',
    details:
      'Runs the OpenSSH client of this machine through the tunnel, with the host key of the workspace pinned. Your ' +
      '~/.ssh/config applies. If the workspace is stopped, asks whether to start it; without a terminal it is started only with --start or if its schedule says so (`cde schedule`). Exits with the exit code of the remote command. As with ' +
      'ssh, options go before the command.',
    endsOptions: true,
    arguments: {
      workspace: { help: 'NAME or OWNER/NAME', completes: 'connectable' },
      command: { help: 'The command to run instead of a shell', many: true, optional: true },
    },
    options: {
      ...startOptions,
      forwardAgent: { kind: 'flag', short: 'A', help: 'Forward your SSH agent' },
      local: { kind: 'list', short: 'L', value: 'SPEC', help: 'Forward a local port, like ssh -L' },
      remote: { kind: 'list', short: 'R', value: 'SPEC', help: 'Forward a remote port, like ssh -R' },
      dynamic: { kind: 'list', short: 'D', value: 'SPEC', help: 'Run a SOCKS proxy, like ssh -D' },
      option: { kind: 'list', short: 'o', value: 'KEY=VALUE', help: 'An option of ssh_config' },
      tty: { kind: 'flag', short: 't', help: 'Request a terminal even for a command' },
      withoutTty: { kind: 'flag', short: 'T', help: 'Do not request a terminal' },
      forwardOnly: { kind: 'flag', short: 'N', help: 'Forward ports only' },
      verbose: { kind: 'flag', short: 'v', help: 'Print debug messages of ssh and each path change' },
      path,
      stdio: { kind: 'flag', help: 'Carry SSH over stdin and stdout, for ProxyCommand' },
    },
    examples: [
      ['cde ssh web', 'a shell'],
      ['cde ssh web make -j4 test', 'run one command'],
      ['cde ssh web --path relay -v', 'through a satellite only'],
      ['cde ssh web -L 8080:localhost:80 -N', 'forward a port, no shell'],
      ['ssh -o ProxyCommand="cde ssh --stdio web" web.cde', 'without config-ssh'],
    ],
    load: () => import('./ssh.ts').then((m) => m.ssh),
  }),
  command({
    name: 'config-ssh',
    group,
    summary: 'Configure ssh, scp, rsync and VS Code to reach workspaces as NAME.cde',
    details:
      'Adds one marked Include line to the top of your ssh configuration, which is otherwise unchanged, and keeps the hosts ' +
      'in a separate file. NAME.cde is a workspace on the current server, NAME.SERVER.cde one on another server (see ' +
      '`cde server list`). You can run it again at any time.',
    options: {
      remove: { kind: 'flag', help: 'Remove everything that config-ssh added' },
      dryRun: { kind: 'flag', short: 'n', help: 'Print what would change and change nothing' },
      path,
      sshConfig: {
        kind: 'text',
        value: 'PATH',
        help: 'The ssh configuration to change (default ~/.ssh/config)',
        completes: 'files',
      },
    },
    examples: [
      ['cde config-ssh && ssh web.cde', 'your workspace web'],
      ['ssh ada--web.cde', 'the same by its full name, ada/web'],
      ['ssh web.work.cde', 'your workspace web on the server work'],
      ['cde config-ssh --dry-run', 'preview the changes'],
      ['cde config-ssh --remove', 'undo it'],
    ],
    load: () => import('./config-ssh.ts').then((m) => m.configSsh),
  }),
  command({
    name: 'port-forward',
    group,
    summary: 'Forward ports between this machine and a workspace',
    details:
      'A port is PORT, LOCAL:REMOTE or LOCAL:HOST:REMOTE, where HOST is resolved in the workspace. 8000-8003 is a range, ' +
      '5353/udp is UDP, and 0 as LOCAL picks a free port. -R forwards a port on the loopback address of the workspace to ' +
      'this machine. Runs until Ctrl-C and reconnects when the session ends.',
    arguments: {
      workspace: { help: 'NAME or OWNER/NAME', completes: 'connectable' },
      ports: { help: 'The ports to forward', many: true, optional: true },
    },
    options: {
      reverse: {
        kind: 'list',
        short: 'R',
        value: 'SPEC',
        help: 'Forward a port of the workspace to this machine: PORT, REMOTE:LOCAL or REMOTE:HOST:LOCAL',
      },
      address: { kind: 'text', value: 'ADDRESS', help: 'Listen on this address (default 127.0.0.1)' },
      ...startOptions,
      path,
      verbose: { kind: 'flag', short: 'v', help: 'Print each path change' },
    },
    examples: [
      ['cde port-forward web 3000', 'http://127.0.0.1:3000 is port 3000 of web'],
      ['cde port-forward web 8080:80 5432:db:5432', 'two ports, one on another host'],
      ['cde port-forward web 8000-8003', 'four ports'],
      ['cde port-forward web 5353/udp', 'a UDP port'],
      ['cde port-forward web -R 9003', 'port 9003 of web reaches a debugger on this machine'],
    ],
    load: () => import('./forward/port-forward.ts').then((m) => m.portForward),
  }),
];
