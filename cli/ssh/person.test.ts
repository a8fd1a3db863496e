import { expect, test } from 'vitest';
import { asksForShell } from './person.ts';

test.each([
  'web.cde',
  '-v web.cde',
  '-A -L 8080:localhost:80 web.cde',
  '-L8080:localhost:80 web.cde',
  '-o ForwardAgent=yes web.cde',
  '-vD 1080 web.cde -v',
  '-t web.cde tmux attach',
  '-- web.cde',
])('ssh %s is a person’s', (line) => {
  expect(asksForShell(line.split(' '))).toBe(true);
});

test.each([
  '',
  'web.cde true',
  // VS Code
  '-v -T -D 51234 web.cde',
  '-T -D 51234 -o ConnectTimeout=15 web.cde bash',
  '-o BatchMode=yes web.cde',
  '-oBatchMode=yes web.cde',
  '-o RequestTTY=no web.cde',
  // git, rsync, scp, sftp, jumps, autossh
  'web.cde git-upload-pack project',
  '-x -oForwardAgent=no -oPermitLocalCommand=no -oClearAllForwardings=yes -s -- web.cde sftp',
  '-W db:5432 web.cde',
  '-fN web.cde',
  '-vN web.cde',
  '-L 80:x:80 web.cde -N',
])('ssh %s is not', (line) => {
  expect(asksForShell(line.split(' ').filter(Boolean))).toBe(false);
});
