-- How many customers lists show, as triggers counted them: erased ones only with licenses.
select customers from customer_counts where id = 1;
