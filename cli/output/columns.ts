import stringWidth from 'string-width';

/** The lines of a table on a terminal, whose columns are as wide as their widest cell. Cells may be coloured. */
export function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((cells) => stringWidth(cells[at]!))));
  const pad = (cell: string, width: number) => cell + ' '.repeat(width - stringWidth(cell));
  return rows.map((cells) =>
    cells
      .map((cell, at) => pad(cell, widths[at]!))
      .join('  ')
      .trimEnd(),
  );
}

const graphemes = new Intl.Segmenter();

/** Cuts text without colours to a width in columns, between what a reader sees as letters. */
export function cut(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  let result = '';
  let used = 0;
  for (const { segment } of graphemes.segment(text)) {
    used += stringWidth(segment);
    if (used > width - 1) break;
    result += segment;
  }
  return `${result}…`;
}
