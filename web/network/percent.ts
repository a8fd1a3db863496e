/** `4.2 %`, `< 0.1 %`. */
export const percent = (part: number, all: number): string => {
  if (all === 0 || part === 0) return '0 %';
  const share = (part / all) * 100;
  return share < 0.1 ? '< 0.1 %' : `${share.toFixed(share < 10 ? 1 : 0)} %`;
};
