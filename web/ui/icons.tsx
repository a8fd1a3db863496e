const paths = {
  play: 'M5 3.5v9l7-4.5z',
  stop: 'M4 4h8v8H4z',
  more: 'M3.5 8h.01M8 8h.01M12.5 8h.01',
  plus: 'M8 3v10M3 8h10',
  copy: 'M6 6h7v7H6zM10 6V3H3v7h3',
  check: 'M3 8.5l3.2 3L13 4.5',
  cross: 'M4 4l8 8M12 4l-8 8',
  search: 'M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.5 10.5L14 14',
  terminal: 'M3 4.5l3.5 3.5L3 11.5M8 12h5',
  down: 'M8 3v10M4 9l4 4 4-4',
  chevron: 'M4.5 6.5L8 10l3.5-3.5',
  warning: 'M8 2.5l6 10.5H2zM8 6.5v3M8 11.3v.01',
  link: 'M6 3H3v10h10v-3M9 3h4v4M13 3L7.5 8.5',
} as const;

/** An icon of 16 × 16 in the text's colour. Hidden from screen readers, because a label stands beside it. */
export function Icon({ name }: { name: keyof typeof paths }) {
  const solid = name === 'play' || name === 'stop';
  return (
    <svg
      className="icon"
      viewBox="0 0 16 16"
      width="16"
      height="16"
      aria-hidden="true"
      fill={solid ? 'currentColor' : 'none'}
      stroke="currentColor"
      strokeWidth={name === 'more' ? 2.4 : 1.5}
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d={paths[name]} />
    </svg>
  );
}

export function Spinner() {
  return <span className="spinner" aria-hidden="true" />;
}
