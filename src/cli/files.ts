// What every command that names a configuration has in common.

import { Option } from 'commander'
import { readConfig } from '../config/load.ts'
import { InvalidConfig } from '../gateway.ts'
import type { GatewayConfig } from '../config/schema.ts'

export const configOption = () =>
  new Option('-c, --config <file>', 'route table').default('config/weirgate.yaml').env('WEIRGATE_CONFIG')

export const jsonOption = () => new Option('--json', 'print JSON')

/** A command's outcome: see the exit codes in main.ts. */
export const EXIT = { ok: 0, fault: 1, usage: 2 } as const

/** Reads a configuration. Throws InvalidConfig. */
export function configOf(file: string): GatewayConfig {
  const loaded = readConfig(file, process.env)
  if (!loaded.ok) throw new InvalidConfig(loaded.issues)
  return loaded.config
}

/** A wrong word on the command line: exit code 2. */
export class UsageError extends Error {}
