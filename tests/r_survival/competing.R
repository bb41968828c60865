# What R's survival says of a made cohort with competing events: Rscript tests/r_survival/competing.R
# Writes competing.csv, competing_values.csv beside this file (survival 3.5).
library(survival)
set.seed(11)
n <- 300
x1 <- round(rnorm(n), 4)
x2 <- round(rnorm(n), 4)
first <- rexp(n, exp(0.7 * x1) / 30)
second <- rexp(n, exp(0.5 * x2) / 40)
lost <- runif(n, 5, 80)
time <- ceiling(pmin(first, second, lost))
cause <- ifelse(pmin(first, second) > lost, 0, ifelse(first <= second, 1, 2))
cohort <- data.frame(x1, x2, time, cause)
weighted <- finegray(Surv(time, factor(cause)) ~ ., data = cohort)
model <- coxph(Surv(fgstart, fgstop, fgstatus) ~ x1 + x2, weights = fgwt, data = weighted, ties = "breslow")
at <- c(10, 20, 40, 60)
curve <- summary(survfit(Surv(time, factor(cause)) ~ 1, cohort), times = at)
values <- rbind(
  data.frame(what = "fine_gray", column = names(coef(model)), value = unname(coef(model))),
  data.frame(what = "incidence_event", column = at, value = curve$pstate[, 2]),
  data.frame(what = "incidence_competing", column = at, value = curve$pstate[, 3]),
  data.frame(what = "error_event", column = at, value = curve$std.err[, 2]),
  data.frame(what = "error_competing", column = at, value = curve$std.err[, 3])
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "competing.csv"), row.names = FALSE)
write.csv(values, file.path(at, "competing_values.csv"), row.names = FALSE)
