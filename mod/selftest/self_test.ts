export function start(_args: string[]): number {
  return 0;
}
