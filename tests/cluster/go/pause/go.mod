module cde/pause

go 1.25
