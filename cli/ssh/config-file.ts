/**
 * The two lines that `config-ssh` adds to the top of a person's ssh configuration. Texts here hold bytes
 * (latin1), not characters: the rest of the file must come out as it went in, whatever its encoding.
 */
const marker = '# The next line is kept by `cde config-ssh`; `cde config-ssh --remove` takes both out.';

const bytes = (text: string) => Buffer.from(text, 'utf8').toString('latin1');

/** The file with the Include of `hostsFile` (as ssh's configuration writes the path) on top, and only there. */
export function addInclude(content: string, hostsFile: string): string {
  const rest = removeInclude(content);
  // As the file's first line ends, so do ours.
  const end = /^[^\n]*\r\n/.test(rest) ? '\r\n' : '\n';
  return `${marker}${end}Include ${bytes(hostsFile)}${end}${rest}`;
}

/** The file without our lines, wherever they have been moved to. */
export function removeInclude(content: string): string {
  // The Include goes only together with its mark: one that a person wrote stays.
  const ours = new RegExp(`^${escapePattern(marker)}\\r?(\\n|$)(Include [^\\n]*(\\n|$))?`, 'gm');
  return content.replace(ours, '');
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
