import { type Command, command } from '../command.ts';
import { pathOption as path } from './path-option.ts';

const group = 'Connect:';

export const sshCommands: readonly Command[] = [
  command({
    name: 'ssh',
    group,
    summary: 'Open a shell in a workspace, or run a command',
    details:
      "Runs this machine's OpenSSH client through the tunnel, with the workspace's host key pinned; your ~/.ssh/config " +
      'applies. A stopped workspace is started first. Ends with the exit code of the remote command. As with ssh, ' +
      'options go before the command; everything from its first word on is run there.',
    endsOptions: true,
    arguments: {
      workspace: { help: 'NAME, or OWNER/NAME', completes: 'connectable' },
      command: { help: 'What to run there instead of a shell', many: true, optional: true },
    },
    options: {
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
      forwardAgent: { kind: 'flag', short: 'A', help: 'Forward your SSH agent' },
      local: { kind: 'list', short: 'L', value: 'SPEC', help: "Forward a local port, as ssh's -L" },
      remote: { kind: 'list', short: 'R', value: 'SPEC', help: "Forward a remote port, as ssh's -R" },
      dynamic: { kind: 'list', short: 'D', value: 'SPEC', help: "SOCKS proxy, as ssh's -D" },
      option: { kind: 'list', short: 'o', value: 'KEY=VALUE', help: "An option of ssh's configuration" },
      tty: { kind: 'flag', short: 't', help: 'Ask for a terminal although a command is given' },
      withoutTty: { kind: 'flag', short: 'T', help: 'Ask for no terminal' },
      forwardOnly: { kind: 'flag', short: 'N', help: 'Forward ports only' },
      verbose: { kind: 'flag', short: 'v', help: "ssh's own debug messages, and each change of the path" },
      path,
      stdio: { kind: 'flag', help: "Carry SSH over stdin and stdout: for ssh's ProxyCommand" },
    },
    examples: [
      ['cde ssh web', 'a shell'],
      ['cde ssh web make -j4 test', 'one command; its exit code is passed on'],
      ['cde ssh web --path relay -v', 'through a satellite only, and say which'],
      ['cde ssh web -L 8080:localhost:80 -N', 'forward a port, no shell'],
      ['ssh -o ProxyCommand="cde ssh --stdio web" web.cde', 'what happens underneath'],
    ],
    load: () => import('./ssh.ts').then((m) => m.ssh),
  }),
  command({
    name: 'config-ssh',
    group,
    summary: 'Let ssh, scp, rsync and VS Code reach every workspace as NAME.cde',
    details:
      'Adds one marked Include line to the top of your ssh configuration and keeps the hosts in a file of its own; ' +
      'nothing else in your file is touched. NAME.cde is on the current server, NAME.SERVER.cde on the server of that name ' +
      '(cde server list). May be run again at any time.',
    options: {
      remove: { kind: 'flag', help: 'Take out what config-ssh has written' },
      dryRun: { kind: 'flag', short: 'n', help: 'Say what would change, change nothing' },
      path,
      sshConfig: { kind: 'text', value: 'PATH', help: 'Instead of ~/.ssh/config', completes: 'files' },
    },
    examples: [
      ['cde config-ssh && ssh web.cde', 'your workspace web'],
      ['ssh ada--web.cde', 'the same by its full name, ada/web'],
      ['ssh web.work.cde', 'your workspace web on the server work'],
      ['cde config-ssh --dry-run', 'look first'],
      ['cde config-ssh --remove', 'as if it never was'],
    ],
    load: () => import('./config-ssh.ts').then((m) => m.configSsh),
  }),
  command({
    name: 'port-forward',
    group,
    summary: 'Reach ports of a workspace on this machine, or the other way round',
    details:
      'PORT, LOCAL:REMOTE or LOCAL:HOST:REMOTE, where HOST is seen from the workspace; 8000-8003 is a range; 5353/udp is ' +
      'UDP; LOCAL 0 takes any free port. With -R a port of the workspace, on its loopback address alone, leads to this ' +
      'machine. Runs until Ctrl-C, and connects again by itself when the session ends.',
    arguments: {
      workspace: { help: 'NAME, or OWNER/NAME', completes: 'connectable' },
      ports: { help: 'What to forward, one or more', many: true, optional: true },
    },
    options: {
      reverse: {
        kind: 'list',
        short: 'R',
        value: 'SPEC',
        help: 'PORT, REMOTE:LOCAL or REMOTE:HOST:LOCAL: a port of the workspace that leads to this machine',
      },
      address: { kind: 'text', value: 'ADDRESS', help: 'Listen on this address (default 127.0.0.1)' },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
      path,
      verbose: { kind: 'flag', short: 'v', help: 'Say each change of the path' },
    },
    examples: [
      ['cde port-forward web 3000', 'http://127.0.0.1:3000 is port 3000 of web'],
      ['cde port-forward web 8080:80 5432:db:5432', 'two, one to another host that web sees'],
      ['cde port-forward web 8000-8003', 'four ports'],
      ['cde port-forward web 5353/udp', 'datagrams to UDP port 5353'],
      [
        'cde port-forward web -R 9003',
        'port 9003 of web is port 9003 here: a debugger that listens on the laptop',
      ],
    ],
    load: () => import('./port-forward.ts').then((m) => m.portForward),
  }),
];
