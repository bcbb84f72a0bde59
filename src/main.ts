// The command line. Exit codes: 0 done, 1 a fault, 2 wrong usage or an invalid configuration.

import { Command, CommanderError } from 'commander'
import { checkCommand } from './cli/check.ts'
import { demoCommand } from './cli/demo.ts'
import { explainCommand } from './cli/explain.ts'
import { EXIT, UsageError } from './cli/files.ts'
import { purgeCommand } from './cli/purge.ts'
import { runCommand } from './cli/run.ts'
import { schemaCommand } from './cli/schema.ts'
import { statsCommand } from './cli/stats.ts'
import { VERSION } from './core/version.ts'
import { InvalidConfig } from './gateway.ts'

const program = new Command('weirgate')
  .description('A reverse gateway: caches what it may, limits what each client may ask for, forwards the rest.')
  .version(VERSION)
for (const create of [
  runCommand,
  checkCommand,
  explainCommand,
  purgeCommand,
  statsCommand,
  demoCommand,
  schemaCommand,
]) {
  program.addCommand(create())
}
// Settings are not inherited by commands that were made elsewhere.
for (const command of [program, ...program.commands]) command.exitOverride().showSuggestionAfterError()

// `weirgate schema | head` closes the pipe before all is written.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = exitCodeFor(error)
}

function exitCodeFor(error: unknown): number {
  // Commander has printed its own message by now; code 0 is --help and --version.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  console.error(error instanceof Error ? error.message : error)
  return error instanceof InvalidConfig || error instanceof UsageError ? EXIT.usage : EXIT.fault
}
