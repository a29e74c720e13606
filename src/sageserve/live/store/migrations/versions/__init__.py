"""The steps, one file each, in the order of their numbers. A step that was published is never changed: add another one."""
