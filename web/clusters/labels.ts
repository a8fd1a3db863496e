/** Labels as people type them: `gpu=a100`, one on each line. */
export function writeLabels(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join('\n');
}

/** Parses the labels in a text, or says what is wrong with it. Empty lines are skipped. */
export function readLabels(
  text: string,
): { labels: Record<string, string>; problem?: undefined } | { problem: string } {
  const labels: Record<string, string> = {};
  for (const line of text.split('\n').map((each) => each.trim())) {
    if (line === '') continue;
    const at = line.indexOf('=');
    const name = line.slice(0, at).trim();
    const value = line.slice(at + 1).trim();
    if (at < 1 || name === '') return { problem: `“${line}” is not name=value.` };
    if (Object.hasOwn(labels, name)) return { problem: `${name} appears twice.` };
    if (name.length > 63 || value.length > 63)
      return { problem: `${name.slice(0, 20)}… is longer than 63 characters.` };
    labels[name] = value;
  }
  return { labels };
}
