"""Our passes by name; a module is imported when its pass is first asked for."""

from .. import __doc__ as _guard  # fails on a bare `import passes`: one identity only, mpk_ir.passes

del _guard

PASSES = {
    "tg-canonicalize": "mpk_ir.passes.tg.canonicalize:TgCanonicalize",
    "tg-raise": "mpk_ir.passes.tg.raise_ops:TgRaise",
    "tg-shard": "mpk_ir.passes.tg.shard:TgShard",
    "tg-hoist-rows": "mpk_ir.passes.tg.hoist_rows:TgHoistRows",
    "tg-merge-linears": "mpk_ir.passes.tg.merge_linears:TgMergeLinears",
    "tg-fuse": "mpk_ir.passes.tg.fuse:TgFuse",
    "tile": "mpk_ir.passes.tile.tile:Tile",
    "sm-synthesize-events": "mpk_ir.passes.sm.synthesize_events:SynthesizeEvents",
    "sm-overlap-comm": "mpk_ir.passes.sm.overlap_comm:OverlapComm",
    "sm-poll-data": "mpk_ir.passes.sm.poll_data:PollData",
    "sm-panel-rows": "mpk_ir.passes.sm.panel_rows:PanelRows",
    "sm-fuse-events": "mpk_ir.passes.sm.fuse_events:FuseEvents",
    "sm-elide-waits": "mpk_ir.passes.sm.elide_waits:ElideWaits",
    "sm-normalize-events": "mpk_ir.passes.sm.normalize_events:NormalizeEvents",
    "sm-schedule": "mpk_ir.passes.sm.schedule:Schedule",
    "sm-fuse-chains": "mpk_ir.passes.sm.fuse_chains:FuseChains",
    "sm-schedule-list": "mpk_ir.passes.sm.schedule_list:ScheduleList",
    "sm-pipeline": "mpk_ir.passes.sm.pipeline:Pipeline",
    "sm-plan-memory": "mpk_ir.passes.sm.plan_memory:PlanMemory",
    "sm-verify": "mpk_ir.passes.sm.verify:Verify",
    "sm-expand": "mpk_ir.passes.sm.expand:Expand",
    "lower-to-cuda": "mpk_ir.passes.lower.lower_to_cuda:LowerToCuda",
}
"""Pass name, as on the command line -> `module:class` of its `ModulePass`."""
