const powers: Record<string, number> = {
  '': 1,
  k: 1e3,
  K: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/**
 * Bytes of a quantity as Kubernetes writes it: `512Mi`, `2Gi`, `1.5G`, `1048576`; a number is bytes.
 * Null when it is none, or is not a whole number of bytes that JavaScript can hold.
 */
export function parseQuantity(quantity: string | number): number | null {
  const match = /^(\d{1,16}(?:\.\d{1,6})?) ?([KMGT]i|[kKMGT])?B?$/.exec(String(quantity).trim());
  if (!match) return null;
  const bytes = Math.round(Number(match[1]) * powers[match[2] ?? '']!);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** `2Gi`, `512Mi`, `1000000`: the shortest exact way to write a number of bytes. */
export function formatQuantity(bytes: number): string {
  for (const unit of ['Ti', 'Gi', 'Mi', 'Ki'] as const) {
    if (bytes > 0 && bytes % powers[unit]! === 0) return `${bytes / powers[unit]!}${unit}`;
  }
  return String(bytes);
}

const milliseconds: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a template's duration (`90s`, `10m`, `2h`); null when it is none. */
export function parseDuration(duration: string): number | null {
  const match = /^(\d{1,9})(ms|s|m|h)$/.exec(duration);
  return match ? Number(match[1]) * milliseconds[match[2]!]! : null;
}
