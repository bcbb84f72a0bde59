// The command line. Exit codes: 0 done, 1 a fault, 2 wrong usage or an invalid configuration. bin/weirgate.js starts it.

import { flushCompileCache } from 'node:module'
import { Command, CommanderError } from 'commander'
import { EXIT, UsageError } from './cli/files.ts'
import { VERSION } from './core/version.ts'
import { InvalidConfig } from './gateway.ts'

/** In the order of --help. Only the one that is asked for is imported. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./cli/run.ts')).runCommand(),
  check: async () => (await import('./cli/check.ts')).checkCommand(),
  explain: async () => (await import('./cli/explain.ts')).explainCommand(),
  purge: async () => (await import('./cli/purge.ts')).purgeCommand(),
  free: async () => (await import('./cli/free.ts')).freeCommand(),
  stats: async () => (await import('./cli/stats.ts')).statsCommand(),
  demo: async () => (await import('./cli/demo.ts')).demoCommand(),
  schema: async () => (await import('./cli/schema.ts')).schemaCommand(),
}

const program = new Command('weirgate')
  .description('A reverse gateway: caches what it may, limits what each client may ask for, forwards the rest.')
  .version(VERSION)
const asked = Object.entries(COMMANDS).filter(([name]) => name === process.argv[2])
for (const [, load] of asked.length > 0 ? asked : Object.entries(COMMANDS)) program.addCommand(await load())
// Settings are not inherited by commands that were made elsewhere.
for (const command of [program, ...program.commands]) command.exitOverride().showSuggestionAfterError()

// `weirgate schema | head` closes the pipe before all is written.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return
  console.error(`Standard output cannot be written: ${error.message}`)
  process.exit(EXIT.fault)
})

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = exitCodeFor(error)
}
// Node does it when a process ends by itself; a gateway that runs on from here may be killed.
flushCompileCache()

function exitCodeFor(error: unknown): number {
  // Commander has printed its own message by now; code 0 is --help and --version.
  if (error instanceof CommanderError) {
    if (error.code === 'commander.excessArguments') console.error('A route table is named by -c FILE.')
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  }
  console.error(error instanceof Error ? error.message : error)
  return error instanceof InvalidConfig || error instanceof UsageError ? EXIT.usage : EXIT.fault
}
